"""Critical paths of phases, and the breakdown of their time.

The path runs back from a phase's end through the operation that each operation waited for. While an operation runs at a
fraction f of its full speed, f of the time counts to its own kind and 1 - f to the bottleneck resource.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from offsim.engine import Operation, Resource
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
    start, fraction, bottleneck = operation.started_at, 1.0, None
    for time, new_fraction, new_bottleneck in operation.slowdowns or ():
        if time > start:
            yield Span(start, time, fraction, bottleneck)
        start, fraction, bottleneck = time, new_fraction, new_bottleneck
    if operation.ended_at > start:
        yield Span(start, operation.ended_at, fraction, bottleneck)


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
        self._by_rank: dict[int, list[Operation]] = {rank.number: [] for rank in run.ranks}
        for operation in run.operations:
            if operation.done:
                self._by_rank[operation.stream.rank].append(operation)
        for operations in self._by_rank.values():
            operations.sort(key=lambda operation: (operation.ended_at, operation.index))

    def walk(self, phase: PhaseSpan) -> list[Step]:
        """The path's steps from the phase's start to its end, without gaps, in temporal order."""
        steps: list[Step] = []
        until = phase.end
        operation = self._last_of(phase)
        while until > phase.start:
            if operation is None:
                steps.append(Step(None, phase.start, until))
                break
            if operation.ended_at < until:
                begin = max(operation.ended_at, phase.start)
                steps.append(Step(None, begin, until))
                until = begin
            begin = max(operation.started_at, phase.start)
            if begin < until:
                steps.append(Step(operation, begin, until))
                until = begin
            operation = self._released(operation)
        steps.reverse()
        return steps

    def _last_of(self, phase: PhaseSpan) -> Operation | None:
        ended = self._by_rank[phase.rank]
        end = bisect_right(ended, phase.end, key=_ended_at)
        begin = bisect_left(ended, phase.end, key=_ended_at)
        # Operations without duration may end at the same instant in the next phase already.
        of_phase = [operation for operation in ended[begin:end] if operation.phase == phase.name]
        if of_phase:
            return max(of_phase, key=lambda operation: (operation.stream.name == HOST_THREAD, operation.index))
        return ended[end - 1] if end else None

    def _released(self, operation: Operation) -> Operation | None:
        """The operation that this one waited for, otherwise the last one that its rank finished before.

        A spawned thread has no predecessor, or an old one: the operation that ended at that instant started it.
        """
        start = operation.started_at
        known = operation.waited_for
        if known is not None and known.ended_at >= start:
            return known
        ended = self._by_rank[operation.stream.rank]
        found: Operation | None = None
        for at in reversed(range(bisect_right(ended, start, key=_ended_at))):
            candidate = ended[at]
            if found is not None and candidate.ended_at < found.ended_at:
                break
            if candidate.index < operation.index and (found is None or candidate.stream.name == HOST_THREAD):
                found = candidate
        return found


def _ended_at(operation: Operation) -> float:
    return operation.ended_at


def spent_on(steps: Iterable[Step]) -> dict[str, float]:
    """Name -> seconds of a path, largest first; they add up to the path."""
    seconds: dict[str, float] = {}

    def add(name: str, amount: float) -> None:
        seconds[name] = seconds.get(name, 0.0) + amount

    for operation, start, end in steps:
        if operation is None:
            add(WAITING, end - start)
            continue
        kind = KINDS.get(operation.kind, operation.kind)
        for span in spans(operation):
            length = min(span.end, end) - max(span.start, start)
            if length <= 0:
                continue
            if span.bottleneck is None:
                add(kind, length)
            else:
                add(kind, span.fraction * length)
                add(label(span.bottleneck), (1.0 - span.fraction) * length)
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))


def limits(run: Run) -> dict[str, dict[str, float]]:
    """Phase -> name -> seconds of its critical path per iteration, summed over micro-steps, largest first."""
    paths = CriticalPaths(run)
    steps: dict[str, list[Step]] = {}
    for phase in job_phases(run):
        steps.setdefault(phase.name, []).extend(paths.walk(phase))
    return {
        name: {kind: seconds / run.iterations for kind, seconds in spent_on(path).items()}
        for name, path in steps.items()
    }
