"""The flat records of a run: one row per activity, one per change of a memory tier. Columns as plain lists.

Time zero is the start of the measured iterations. Operations that reach into them from before start at negative times.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from offsim.engine import Operation
from offsim.platform.platform import TrackedTier
from offsim.programs.run import Run
from offsim.results.limits import job_phases, slowed_by

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Peak:
    """The high-water mark of a memory tier during the iteration, and its occupants. Bytes and seconds."""

    tier: str
    kind: str
    """gpu, memory or storage."""
    bytes: float
    capacity_bytes: float
    time_s: float
    occupants: dict[str, float]


def kept_operations(run: Run) -> list[Operation]:
    """The operations that ended in the measured iterations or later."""
    zero = run.started_at
    return [o for o in run.operations if o.ended_at > zero or (o.ended_at == zero and o.iteration >= run.first)]


def timeline_columns(run: Run, operations: list[Operation]) -> tuple[list[int], Columns]:
    """Activity ids, and the columns of the timeline."""
    zero = run.started_at
    ids = [operation.index for operation in operations]
    kept = set(ids)
    columns: Columns = {
        "iteration": [o.iteration - run.first + 1 for o in operations],
        "phase": [o.phase for o in operations],
        "rank": [o.stream.rank for o in operations],
        "stream": [o.stream.name for o in operations],
        "activity": [o.kind for o in operations],
        "name": [o.name for o in operations],
        "subgroup": [o.subgroup for o in operations],
        "layer": [o.layer for o in operations],
        "bytes": [float(o.bytes) for o in operations],
        "enqueued_s": [o.enqueued_at - zero for o in operations],
        "start_s": [o.started_at - zero for o in operations],
        "end_s": [o.ended_at - zero for o in operations],
        "alone_s": [float(o.duration) for o in operations],
        "waited_for": [o.waited_for.index if o.waited_for and o.waited_for.index in kept else -1 for o in operations],
        "limited_by": [slowed_by(o) for o in operations],
    }
    return ids, columns


def phase_columns(run: Run) -> Columns:
    """The phases per micro-step; if memory ran out, the last one ends there."""
    zero = run.started_at
    rows = [(phase.iteration, phase.name, phase.micro_step, phase.start, phase.end) for phase in job_phases(run)]
    if run.out_of_memory is not None:
        start, end = rows[-1][-1] if rows else zero, run.out_of_memory.time
        if end > start:
            name = run.ranks[0].host.phase
            rows.append((1, name, sum(row[1] == name for row in rows), start, end))
    iterations, names, steps, starts, ends = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return {
        "iteration": list(iterations),
        "phase": list(names),
        "micro_step": list(steps),
        "start_s": [start - zero for start in starts],
        "end_s": [end - zero for end in ends],
        "duration_s": [end - start for start, end in zip(starts, ends, strict=True)],
    }


def memory_columns(run: Run) -> Columns:
    """Bytes of each occupant from an instant on; changes before time zero are summed at zero."""
    columns: Columns = {"time_s": [], "tier": [], "occupant": [], "bytes": [], "used_bytes": []}
    for tier in run.platform.tiers:
        times, names, held, used = _since(run.started_at, tier)
        columns["time_s"] += [time - run.started_at for time in times]
        columns["tier"] += [tier.name] * len(times)
        columns["occupant"] += names
        columns["bytes"] += [nbytes * tier.scale for nbytes in held]
        columns["used_bytes"] += [nbytes * tier.scale for nbytes in used]
    return columns


def _since(zero: float, tier: TrackedTier) -> tuple[list[float], list[str], list[float], list[float]]:
    """The columns of a tier's changes from time zero on, starting with the occupants at zero."""
    times, names, held, used = tier.memory.columns
    later = bisect_left(times, zero)
    before = dict(zip(names[:later], held[:later], strict=True))
    at_zero = {name: nbytes for name, nbytes in before.items() if nbytes > 0}
    return (
        [*([zero] * len(at_zero)), *times[later:]],
        [*at_zero, *names[later:]],
        [*at_zero.values(), *held[later:]],
        [*accumulate(at_zero.values()), *used[later:]],
    )


def peaks(run: Run) -> list[Peak]:
    """The high-water mark of each tier during the measured iterations."""
    found = []
    for tier in run.platform.tiers:
        times, names, held, used = _since(run.started_at, tier)
        most = max(used, default=0.0)
        until = used.index(most) + 1 if most > 0.0 else 0
        then = dict(zip(names[:until], held[:until], strict=True))
        occupants = {name: nbytes * tier.scale for name, nbytes in then.items() if nbytes > 0}
        time = times[until - 1] - run.started_at if until else 0.0
        found.append(Peak(tier.name, tier.kind, most * tier.scale, tier.capacity, time, occupants))
    return found
