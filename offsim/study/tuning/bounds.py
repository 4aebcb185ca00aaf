"""The least that an iteration takes and holds, from the work of its streams and resources, without simulating it.

The host thread's code is run once from start to end. An operation ends no earlier than all that it waits for, plus
what it takes alone: the longest path, as if nothing shared anything. And a phase takes no less than any of its
resources needs for the work that the host thread has seen finished when the phase ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

from simpy import Environment, Event

from offsim.engine import Engine, Operation, OutOfMemory, Resource, Stream
from offsim.engine.operation import CopyEngine
from offsim.platform.hardware import HardwareProfile
from offsim.platform.node import Layout, Node
from offsim.programs.rank import Collectives, HostThread, Rank
from offsim.programs.run import phase_processes
from offsim.programs.training import PassCosts, Zero3
from offsim.programs.transformer import Workload
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler


class Bound(NamedTuple):
    """Seconds that an iteration takes at least, and bytes that a GPU holds at least at its peak.

    `fits` is false where what is held throughout does not fit; where it is true the iteration may still not fit.
    """

    iteration_s: float
    gpu_bytes: float
    fits: bool = True


NOTHING_KNOWN = Bound(0.0, 0.0)


class _Clock(Environment):
    """Never runs: time is what the host thread has come to. Code of further threads is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = 0.0

    @property
    def now(self) -> float:
        return self.reached

    def process(self, generator: Generator[Event, Any, Any]) -> Any:
        generator.close()


class _Ledger(Engine):
    """Ends each operation as early as it can, and keeps what the host thread has waited for."""

    def __init__(self, host: HostThread | None = None) -> None:
        super().__init__()
        self.clock = _Clock()
        self.env = self.clock
        self.host = host
        self._behind: list[tuple[Operation, ...]] = []
        self._seen: list[bool] = []
        self._work: dict[Stream | CopyEngine | Resource, float] = {}
        self._first = 0
        self._changes: dict[Stream, list[Operation]] = {}
        self._touched_by: dict[str, set[Stream]] = {}

    def enqueue(
        self, operation: Operation, phase: str, after: Iterable[Operation | None] = (), issuer: Stream | None = None
    ) -> Operation:
        stream = operation.stream
        behind = tuple(one for one in (stream.tail, *after) if one is not None)
        operation.index = len(self._behind)
        operation.ended_at = max([self.clock.reached, *(one.ended_at for one in behind)]) + operation.duration
        stream.tail = operation
        if operation.allocates or operation.frees:
            self._changes.setdefault(stream, []).append(operation)
            for _, occupant, _ in (*operation.allocates, *operation.frees):
                self._touched_by.setdefault(occupant, set()).add(stream)
        self._behind.append(behind)
        self._seen.append(False)
        if stream is self.host:
            self.clock.reached = operation.ended_at
            self._see(operation)
        return operation

    def close(self) -> None:
        """Let go of what refers back to what it belongs to, as `Engine.close` does."""
        for behind in self._behind:
            for operation in behind:
                operation.stream.tail = None
        self._behind.clear()

    def _see(self, operation: Operation) -> None:
        """It has ended, and so has all that it waited for."""
        waiting = [operation]
        while waiting:
            seen = waiting.pop()
            if self._seen[seen.index]:
                continue
            self._seen[seen.index] = True
            waiting += self._behind[seen.index]
            if seen.index >= self._first and seen.duration:
                self._account(seen)

    def _account(self, operation: Operation) -> None:
        work, seconds = self._work, operation.duration
        work[operation.stream] = work.get(operation.stream, 0.0) + seconds
        if operation.engine is not None:
            work[operation.engine] = work.get(operation.engine, 0.0) + seconds
        for resource, rate in operation.usage:
            work[resource] = work.get(resource, 0.0) + seconds * rate / resource.capacity

    def most_held(self) -> float:
        """Bytes that one stream's operations hold at least at some time, of what only they take and give back."""
        most = 0.0
        for stream, operations in self._changes.items():
            held = 0.0
            for operation in operations:
                held += sum(n for _, name, n in operation.allocates if self._touched_by[name] == {stream})
                most = max(most, held)
                held -= sum(n for _, name, n in operation.frees if self._touched_by[name] == {stream})
        return most

    def end_phase(self, started: float) -> None:
        """The host thread is through with a phase: not before the resource with most work was."""
        self.clock.reached = max(self.clock.reached, started + max(self._work.values(), default=0.0))
        self._work.clear()
        self._first = len(self._behind)


def lower_bound(scenario: Scenario, profile: HardwareProfile) -> Bound:
    """What no simulation of the scenario on the profile falls below; nothing is known where `fixed_work` is false."""
    cls, options = scenario_scheduler(scenario)
    if not cls.fixed_work:
        return NOTHING_KNOWN
    workload = Workload(scenario.model, scenario.training)
    training = scenario.training
    layout = Layout.of(training.data_parallel * training.tensor_parallel, profile, all_ranks=False)
    ledger = _Ledger()
    rank = Rank(ledger, Node(ledger, profile, layout), 0, workload, Collectives(1))
    ledger.host = rank.host
    try:
        scheduler = cls(options, workload)
        zero3 = Zero3(rank, PassCosts.of(rank))
        scheduler.allocate(rank)
        throughout = rank.gpu_memory.used
        for name, process in phase_processes(rank, zero3, scheduler):
            rank.phase = name
            started = ledger.clock.reached
            for _ in process:
                pass
            ledger.end_phase(started)
        held = max(rank.gpu_memory.peak, throughout + ledger.most_held())
    except OutOfMemory:
        return Bound(float("inf"), float("inf"), fits=False)
    finally:
        ledger.close()
    return Bound(ledger.clock.reached, held, fits=held <= rank.gpu_memory.capacity)
