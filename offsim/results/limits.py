"""Critical paths of phases, and the breakdown of their time.

The path runs back from a phase's end through the operation that each operation waited for. While an operation runs at a
fraction f of its full speed, f of the time counts to its own kind and 1 - f to the bottleneck resource.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from offsim.engine import Operation, Resource
from offsim.programs.run import Run

if TYPE_CHECKING:
    from offsim.tape.tables import Taped

WAITING = "waiting"
HOST_THREAD = "host thread"
KINDS = {
    "cpu_adam": "CPU Adam",
    "scaling": "gradient scaling",
    "conversion": "conversion",
    "d2h": "D2H",
    "h2d": "H2D",
    "compute": "GPU compute",
    "d2d": "GPU compute",
    "gpu_adam": "GPU Adam",
    "launch": "launch",
    "all_gather": "collectives",
    "reduce_scatter": "collectives",
    "all_reduce": "collectives",
    "wait": WAITING,
}
"""Operation kind -> name that its own time counts to; other kinds count to themselves."""


class Span(NamedTuple):
    """An interval of an operation at constant speed."""

    start: float
    end: float
    fraction: float
    bottleneck: Resource | None


class Step(NamedTuple):
    """An interval of a critical path: an operation, or None where no operation explains the time."""

    operation: Operation | None
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A phase of the whole job in simulation time; phases begin and end with the slowest rank."""

    iteration: int
    name: str
    micro_step: int
    start: float
    end: float
    rank: int
    """The rank that ends it last."""


def spans(operation: Operation) -> Iterator[Span]:
    """The intervals of a finished operation between changes of its speed."""
    start, fraction, bottleneck = operation.started_at, 1.0, None
    for time, new_fraction, new_bottleneck in [*(operation.slowdowns or ()), (operation.ended_at, 1.0, None)]:
        if time > start:
            yield Span(start, time, fraction, bottleneck)
        start, fraction, bottleneck = time, new_fraction, new_bottleneck


def label(resource: Resource) -> str:
    """The resource's name without its rank or domain number."""
    return resource.name.rstrip("0123456789").rstrip()


def slowed_by(operation: Operation) -> str:
    """The resource that slowed the operation most; "" if none did."""
    if operation.slowdowns is None:
        return ""
    lost: dict[str, float] = {}
    for span in spans(operation):
        if span.bottleneck is not None:
            name = label(span.bottleneck)
            lost[name] = lost.get(name, 0.0) + (1.0 - span.fraction) * (span.end - span.start)
    return max(lost, key=lost.__getitem__, default="")


def job_phases(run: Run) -> list[PhaseSpan]:
    """The phases that all ranks finished, without gaps, so that they add up to the iteration."""
    measured = [phase for phase in run.phases if run.first <= phase.iteration <= run.last]
    per_rank = [[phase for phase in measured if phase.rank == rank.number] for rank in run.ranks]
    phases: list[PhaseSpan] = []
    start = run.started_at
    seen: dict[tuple[int, str], int] = {}
    for together in zip(*per_rank, strict=False):
        last = max(together, key=lambda phase: phase.end)
        key = last.iteration, last.name
        step = seen[key] = seen.get(key, -1) + 1
        phases.append(PhaseSpan(last.iteration - run.first + 1, last.name, step, start, last.end, last.rank))
        start = last.end
    return phases


class CriticalPaths:
    """Critical paths of one run. What is spent in those of a tape's runs, its loop adds up by the same rules."""

    def __init__(self, run: Run) -> None:
        self._by_rank: dict[int, list[Operation]] = {rank.number: [] for rank in run.ranks}
        for operation in sorted((o for o in run.operations if o.done), key=_end):
            self._by_rank[operation.stream.rank].append(operation)

    def walk(self, phase: PhaseSpan) -> list[Step]:
        """The path's steps from the phase's start to its end, without gaps, in temporal order."""
        path: list[Step] = []
        until = phase.end
        operation = self._last_of(phase)
        while until > phase.start:
            if operation is None:
                path.append(Step(None, phase.start, until))
                break
            if operation.ended_at < until:
                begin = max(operation.ended_at, phase.start)
                path.append(Step(None, begin, until))
                until = begin
            start = operation.started_at
            begin = max(start, phase.start)
            if begin < until:
                path.append(Step(operation, begin, until))
                until = begin
            known = operation.waited_for
            operation = known if known is not None and known.ended_at >= start else self._released(operation)
        path.reverse()
        return path

    def spent(self, phases: Iterable[PhaseSpan]) -> dict[str, float]:
        """Name -> seconds of the paths of phases, largest first; they add up to the phases."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for phase in phases:
            for operation, start, end in self.walk(phase):
                name = _counts_to(operation)
                if operation is None or operation.slowdowns is None:
                    seconds[name] += end - start
                    continue
                for since, until, fraction, bottleneck in spans(operation):
                    length = min(until, end) - max(since, start)
                    if length <= 0:
                        continue
                    seconds[name] += fraction * length
                    if bottleneck is not None:
                        seconds[_counts_to(bottleneck)] += (1.0 - fraction) * length
        return largest_first(seconds)

    def _last_of(self, phase: PhaseSpan) -> Operation | None:
        operations = self._by_rank[phase.rank]
        end = bisect_right(operations, phase.end, key=_end)
        begin = bisect_left(operations, phase.end, key=_end)
        # Operations without duration may end at the same instant in the next phase already.
        if of_phase := [operation for operation in operations[begin:end] if operation.phase == phase.name]:
            return max(of_phase, key=lambda operation: (operation.stream.name == HOST_THREAD, operation.index))
        return operations[end - 1] if end else None

    def _released(self, operation: Operation) -> Operation | None:
        """The last one that the rank of an operation finished before it.

        A spawned thread waited for nothing, or for an old one: the operation that ended at that instant started it.
        """
        operations = self._by_rank[operation.stream.rank]
        found: Operation | None = None
        for at in reversed(range(bisect_right(operations, operation.started_at, key=_end))):
            candidate = operations[at]
            if found is not None and candidate.ended_at < found.ended_at:
                break
            before = candidate.index < operation.index
            if before and (found is None or candidate.stream.name == HOST_THREAD):
                found = candidate
        return found


_end = attrgetter("ended_at")


def _counts_to(what: Operation | Resource | None) -> str:
    """What time counts to: of an operation, lost to a resource, or explained by nothing."""
    if what is None:
        return WAITING
    return label(what) if isinstance(what, Resource) else KINDS.get(what.kind, what.kind)


def largest_first(amounts: Mapping[str, float]) -> dict[str, float]:
    """Name -> amount, by amount and then by name."""
    return dict(sorted(amounts.items(), key=lambda item: (-item[1], item[0])))


def limits(run: Run) -> dict[str, dict[str, float]]:
    """Phase -> name -> seconds of its critical path per iteration, summed over micro-steps, largest first."""
    phases: dict[str, list[PhaseSpan]] = {}
    for phase in job_phases(run):
        phases.setdefault(phase.name, []).append(phase)
    if run.taped is None:
        paths = CriticalPaths(run)
        found = {name: paths.spent(parts) for name, parts in phases.items()}
    else:
        found = _from_tape(run.taped, phases, run.last)
    return {name: {kind: seconds / run.iterations for kind, seconds in spent.items()} for name, spent in found.items()}


def _from_tape(taped: Taped, phases: Mapping[str, list[PhaseSpan]], last: int) -> dict[str, dict[str, float]]:
    from offsim.tape.paths import Paths

    paths = taped.paths = taped.paths or Paths(taped, _counts_to, HOST_THREAD)
    spent = paths.spent([(name, p.start, p.end, p.rank) for name, parts in phases.items() for p in parts], last)
    return {name: largest_first(spent[name]) for name in phases}
