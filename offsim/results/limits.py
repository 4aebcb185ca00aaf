"""Critical paths of phases, and the breakdown of their time.

The path runs back from a phase's end through the operation that each operation waited for. While an operation runs at a
fraction f of its full speed, f of the time counts to its own kind and 1 - f to the bottleneck resource.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from offsim.engine import Operation, Resource
from offsim.engine.course import NOTHING
from offsim.engine.crowd import Change
from offsim.programs.run import Run

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
    return map(Span._make, _spans(operation.started_at, operation.ended_at, operation.slowdowns or ()))


def _spans(start: float, end: float, changes: Iterable[Change]) -> list[tuple[float, float, float, Resource | None]]:
    found = []
    fraction: float = 1.0
    bottleneck: Resource | None = None
    for time, new_fraction, new_bottleneck in changes:
        if time > start:
            found.append((start, time, fraction, bottleneck))
        start, fraction, bottleneck = time, new_fraction, new_bottleneck
    if end > start:
        found.append((start, end, fraction, bottleneck))
    return found


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
    """Critical paths of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._course = course = run.course()
        self._by_rank: dict[int, list[int]] = {rank.number: [] for rank in run.ranks}
        if len(run.ranks) == 1:
            self._by_rank[run.ranks[0].number] = course.order
        else:
            for number in course.order:
                self._by_rank[course.operations[number].stream.rank].append(number)
        self._ends = {rank: [course.ended[number] for number in ended] for rank, ended in self._by_rank.items()}

    def walk(self, phase: PhaseSpan) -> list[Step]:
        """The path's steps from the phase's start to its end, without gaps, in temporal order."""
        operations = self._course.operations if self._run.operations else ()
        return [Step(None if at == NOTHING else operations[at], *part) for at, *part in self._path(phase)]

    def spent(self, phases: Iterable[PhaseSpan]) -> dict[str, float]:
        """Name -> seconds of the paths of phases, largest first; they add up to the phases."""
        seconds: defaultdict[str, float] = defaultdict(float)
        labels: dict[Resource, str] = {}
        operations, _, _, started, ended, _, changes = self._course
        for phase in phases:
            for number, start, end in self._path(phase):
                if number == NOTHING:
                    seconds[WAITING] += end - start
                    continue
                kind = operations[number].kind
                kind = KINDS.get(kind, kind)
                slowdowns = changes(number)
                if slowdowns is None:
                    seconds[kind] += end - start
                    continue
                for since, until, fraction, bottleneck in _spans(started[number], ended[number], slowdowns):
                    length = (until if until < end else end) - (since if since > start else start)
                    if length <= 0:
                        continue
                    if bottleneck is None:
                        seconds[kind] += length
                        continue
                    seconds[kind] += fraction * length
                    if bottleneck not in labels:
                        labels[bottleneck] = label(bottleneck)
                    seconds[labels[bottleneck]] += (1.0 - fraction) * length
        return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))

    def _path(self, phase: PhaseSpan) -> list[tuple[int, float, float]]:
        """As `walk`, with the numbers of operations."""
        path: list[tuple[int, float, float]] = []
        started, ended, waited_for = self._course.started, self._course.ended, self._course.waited_for
        until = phase.end
        number = self._last_of(phase)
        while until > phase.start:
            if number == NOTHING:
                path.append((NOTHING, phase.start, until))
                break
            if ended[number] < until:
                begin = max(ended[number], phase.start)
                path.append((NOTHING, begin, until))
                until = begin
            start = started[number]
            begin = max(start, phase.start)
            if begin < until:
                path.append((number, begin, until))
                until = begin
            known = waited_for[number]
            number = known if known != NOTHING and ended[known] >= start else self._released(number)
        path.reverse()
        return path

    def _last_of(self, phase: PhaseSpan) -> int:
        operations, place = self._course.operations, self._course.place
        numbers, ends = self._by_rank[phase.rank], self._ends[phase.rank]
        end = bisect_right(ends, phase.end)
        begin = bisect_left(ends, phase.end)
        # Operations without duration may end at the same instant in the next phase already.
        if of_phase := [number for number in numbers[begin:end] if operations[number].phase == phase.name]:
            return max(of_phase, key=lambda number: (operations[number].stream.name == HOST_THREAD, place[number]))
        return numbers[end - 1] if end else NOTHING

    def _released(self, number: int) -> int:
        """The last one that the rank of an operation finished before it.

        A spawned thread waited for nothing, or for an old one: the operation that ended at that instant started it.
        """
        operations, place = self._course.operations, self._course.place
        rank = operations[number].stream.rank
        numbers, ends = self._by_rank[rank], self._ends[rank]
        found = NOTHING
        for at in reversed(range(bisect_right(ends, self._course.started[number]))):
            candidate = numbers[at]
            if found != NOTHING and ends[at] < self._course.ended[found]:
                break
            before = place[candidate] < place[number]
            if before and (found == NOTHING or operations[candidate].stream.name == HOST_THREAD):
                found = candidate
        return found


def limits(run: Run) -> dict[str, dict[str, float]]:
    """Phase -> name -> seconds of its critical path per iteration, summed over micro-steps, largest first."""
    paths = CriticalPaths(run)
    phases: dict[str, list[PhaseSpan]] = {}
    for phase in job_phases(run):
        phases.setdefault(phase.name, []).append(phase)
    return {
        name: {kind: seconds / run.iterations for kind, seconds in paths.spent(parts).items()}
        for name, parts in phases.items()
    }
