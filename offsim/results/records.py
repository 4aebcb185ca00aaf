"""The flat records of a run: one row per activity, one per change of a memory tier. Columns as plain lists.

Time zero is the start of the measured iterations. Operations that reach into them from before start at negative times.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
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
    append = [column.append for column in columns.values()]
    for tier in run.platform.tiers:
        for time, occupant, nbytes, used in _since(run.started_at, tier):
            row = time - run.started_at, tier.name, occupant, nbytes * tier.scale, used * tier.scale
            for add, value in zip(append, row, strict=True):
                add(value)
    return columns


def _since(zero: float, tier: TrackedTier) -> list[tuple[float, str, float, float]]:
    """The changes of a tier from time zero on, starting with the occupants at zero."""
    series = tier.memory.series
    later = bisect_left(series, zero, key=itemgetter(0))
    held = {occupant: nbytes for _, occupant, nbytes, _ in series[:later]}
    occupants = [occupant for occupant, nbytes in held.items() if nbytes > 0]
    total = accumulate(held[occupant] for occupant in occupants)
    at_zero = [(zero, occupant, held[occupant], used) for occupant, used in zip(occupants, total, strict=True)]
    return at_zero + series[later:]


def peaks(run: Run) -> list[Peak]:
    """The high-water mark of each tier during the measured iterations."""
    found = []
    for tier in run.platform.tiers:
        rows = _since(run.started_at, tier)
        used = list(map(itemgetter(3), rows))
        most = max(used, default=0.0)
        until = rows[: used.index(most) + 1] if most > 0.0 else []
        held = dict(map(itemgetter(1, 2), until))
        occupants = {name: nbytes * tier.scale for name, nbytes in held.items() if nbytes > 0}
        time = until[-1][0] - run.started_at if until else 0.0
        found.append(Peak(tier.name, tier.kind, most * tier.scale, tier.capacity, time, occupants))
    return found
