"""Streams and threads, and the engine that runs what is enqueued on them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from heapq import heappop
from types import FrameType, GeneratorType
from typing import Any

from offsim.engine.clock import Clock
from offsim.engine.operation import Operation
from offsim.engine.recorder import Recorder
from offsim.engine.server import Server
from offsim.engine.sharing import Sharing
from offsim.engine.tier import Tier

Code = Generator[Operation | None, Any, Any]
"""What a thread runs: it yields the operations whose end it waits for; None is no wait."""
MOST_NAMED = 3
"""Threads that a message about a deadlock names."""


class Stream:
    """Runs what is enqueued on it one after another: a CUDA stream, or a thread's own work."""

    __slots__ = ("last_ended", "name", "rank", "tail")

    def __init__(self, name: str, rank: int = 0) -> None:
        self.name = name
        self.rank = rank
        self.tail: Operation | None = None
        self.last_ended: Operation | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, rank={self.rank})"


class Thread(Stream):
    """A thread of the host: runs code, and is the stream of its own work. What it enqueues has its tags."""

    __slots__ = ("busy", "code", "end", "iteration", "phase")

    def __init__(self, name: str, rank: int = 0) -> None:
        super().__init__(name, rank)
        self.phase = ""
        self.iteration = 0
        self.busy: Operation | None = None
        """What it does itself, or blocks it: it has to wait for the end before it goes on."""
        self.code: Code | None = None
        """What it runs now."""
        self.end: Operation | None = None
        """The end of the code that it was given last."""


class NotAwaitable(TypeError):
    """A thread's code yielded something that is no operation."""


class NotAwaited(RuntimeError):
    """A thread's code went on, though the thread was busy."""

    def __init__(self, thread: Thread, operation: Operation) -> None:
        super().__init__(thread, operation)
        self.thread = thread
        self.operation = operation

    def __str__(self) -> str:
        return (
            f"'{self.operation.name}' keeps the {self.thread.name} busy, which went on without waiting for its end: "
            "expected it behind `yield`"
        )


class TooManyOperations(RuntimeError):
    """There are more operations than the engine may run."""


class Deadlock(RuntimeError):
    """Threads wait for what will never end."""


class Engine:
    """Clock, sharing and the record of all operations, in the order in which they were enqueued.

    It runs at most so many operations.
    """

    def __init__(
        self, stretch: Mapping[str, float] | None = None, most: int = sys.maxsize, record: bool = False
    ) -> None:
        self.env = Clock(self._next_instant, self._instant)
        self.recorder = Recorder() if record else None
        self.most = most
        self.sharing = Sharing()
        self.stretch = stretch
        """Kind of operation -> how many times as long it takes, at the same demands per second."""
        self.operations: list[Operation] = []
        self._ended = 0
        """So many operations at the beginning of the list have ended, as far as is known."""
        self._threads: dict[Thread, None] = {}
        self.running: dict[Thread, Operation] = {}
        """Threads whose code has not ended, and what that waits for."""
        self.active: Thread | None = None
        """The thread whose code runs now, or ran last."""
        # At this instant: code that begins; ends of operations and threads that go on, in the order in which they were
        # known; then pauses that end.
        self._begun: deque[Iterator[Operation]] = deque()
        self._woken: deque[tuple[int, Iterator[Operation]]] = deque()
        self._paused: deque[Operation] = deque()

    def _next_instant(self) -> float:
        """When something happens next; infinite where nothing does."""
        if self._begun or self._woken or self._paused or self.sharing.changed:
            return self.env.now
        return self.sharing.next_end()

    def _instant(self, now: float) -> None:
        """Do all that happens at this instant, and at the next ones before the clock has something else to do."""
        sharing, begun, woken = self.sharing, self._begun, self._woken
        ends = sharing.ends
        while True:
            if begun:
                self._go_on(begun.popleft())
            elif ends and ends[0][0] <= now and not (woken and woken[0][0] < ends[0][1]):
                ends_at, _, operation = heappop(ends)
                if ends_at == operation.ends_at:
                    sharing.end(operation, now)
                    released: list[Operation] = []
                    self._release(operation, released)
                    if released:
                        self._start(released, now)
            elif woken:
                self._go_on(woken.popleft()[1])
            elif sharing.changed:
                sharing.share(now)
            elif self._paused:
                self._start([self._paused.popleft()], now)
            else:
                now = sharing.next_end()
                if not self.env.advance(now):
                    return

    def _go_on(self, driven: Iterator[Operation]) -> None:
        """Let a thread run until it waits for an operation."""
        awaited = next(driven, None)
        if awaited is None:
            return
        if awaited.waiting is None:
            awaited.waiting = []
        awaited.waiting.append(driven)

    def spawn(self, thread: Thread, code: Code, issuer: Thread | None = None) -> Operation:
        """Run `code` on `thread`, behind the code that it was given before; returns the operation of its end.

        The thread takes over the tags of its `issuer`.
        """
        before, end = thread.end, Operation(thread, "end", f"end of {thread.name}", 0.0)
        end.pending = 1
        thread.end = end
        self._threads[thread] = None
        tags = None
        if issuer is not None:
            tags = issuer.phase, issuer.iteration, issuer.last_ended
            end.phase, end.iteration = issuer.phase, issuer.iteration
        if self.recorder is not None:
            self.recorder.spawned(end, before, self.active)
        self._begun.append(self._drive(thread, code, before, end, tags))
        return end

    def _drive(
        self,
        thread: Thread,
        code: Code,
        before: Operation | None,
        end: Operation,
        tags: tuple[str, int, Operation | None] | None,
    ) -> Iterator[Operation]:
        """Run a thread's code; yields the operations whose end it waits for."""
        behind = before is not None and not before.done
        if before is not None and behind:
            yield before
        if tags is not None:
            thread.phase, thread.iteration = tags[:2]
            if not behind:
                thread.last_ended = tags[2]
        thread.code = code = iter(code)
        self.active = thread
        recorder = self.recorder
        if recorder is not None:
            recorder.begun(thread, end)
        for awaited in code:
            if awaited is None:
                continue
            if not isinstance(awaited, Operation):
                raise NotAwaitable(f"found `yield` of {awaited!r}, expected an operation{_hint(awaited)}")
            if awaited.ended_at < 0.0:
                self.running[thread] = awaited
                yield awaited
                thread.last_ended = awaited
                self.active = thread
            if recorder is not None:
                recorder.awaited(thread, awaited)
        if recorder is not None:
            recorder.finished(thread, end)
        if thread.busy is not None and thread.busy.ended_at < 0.0:
            raise NotAwaited(thread, thread.busy)
        thread.code = None
        self.running.pop(thread, None)
        end.waited_for = thread.last_ended
        end.pending = 0
        self._start([end], self.env.now)

    def tier(self, name: str, capacity: float) -> Tier:
        """Make a memory tier, which fails where it is full."""
        return Tier(self.env, name, capacity)

    def has_ended(self, operation: Operation) -> bool:
        """Whether waiting for the operation would be over at once. What is commanded may not depend on it."""
        return operation.ended_at >= 0.0

    def tail(self, stream: Stream) -> Operation | None:
        """What has been enqueued last on a stream by now, to be behind it."""
        return stream.tail

    def pause(self, thread: Thread) -> Operation:
        """What ends at this instant, after all else that happens at it; yields to other threads."""
        end = Operation(thread, "wait", "pause", 0.0)
        end.waited_for = thread.last_ended
        self._paused.append(end)
        return end

    def unfinished(self) -> list[Operation]:
        """Operations that have been enqueued and have not ended, in order."""
        operations = self.operations
        while self._ended < len(operations) and operations[self._ended].ended_at >= 0.0:
            self._ended += 1
        return [operation for operation in operations[self._ended :] if operation.ended_at < 0.0]

    def check_ended(self) -> None:
        """Raise Deadlock where threads still wait; it says what each waits for, and what that waits for."""
        if not self.running:
            return
        self.active = next(iter(self.running))
        waits = [
            f"{thread.name} of rank {thread.rank} waits for {self._blocked(o)}" for thread, o in self.running.items()
        ]
        more = f"; and {len(waits) - MOST_NAMED} more" if len(waits) > MOST_NAMED else ""
        raise Deadlock(f"nothing is left to run: {'; '.join(waits[:MOST_NAMED])}{more}")

    def _blocked(self, operation: Operation) -> str:
        """What never ends, and why: the chain of what waits for what, to its end or until it closes."""
        unfinished, chain = self.unfinished(), [operation]
        while (
            before := next((o for o in unfinished if chain[-1] in (o.dependents or ())), None)
        ) and before not in chain:
            chain.append(before)
        text = ", which waits for ".join(f"'{o.name}'" for o in chain)
        last = chain[-1]
        gates = [gate.name for gate in _gates(last) if last in gate.waiting and not gate.admits(last)]
        if before is not None:
            return f"{text}, which waits for '{before.name}' again"
        if gates:
            return f"{text}, which waits for room in {' and '.join(gates)}"
        if last.rendezvous is not None and last in last.rendezvous.arrived:
            return f"{text}, which waits for other ranks to join"
        return f"{text}, which never ends"

    def enqueue(
        self, operation: Operation, after: Iterable[Operation | None] = (), thread: Thread | None = None
    ) -> Operation:
        """Put `operation` on its stream; it starts once its predecessor and all of `after` have ended.

        `thread` enqueues it: the operation has its tags, and waited for what the thread did last when nothing else
        held it back.
        """
        stream = operation.stream
        if self.stretch is not None and operation.kind in self.stretch:
            operation.duration *= self.stretch[operation.kind]
            operation.remaining = operation.duration
        operation.index = index = len(self.operations)
        if index >= self.most:
            raise TooManyOperations
        operation.enqueued_at = now = self.env.now
        if thread is not None:
            operation.phase = thread.phase
            operation.iteration = thread.iteration
        active = self.active
        if active is not None:
            busy = active.busy
            if busy is not None and busy.ended_at < 0.0:
                raise NotAwaited(active, busy)
            if stream is active:
                active.busy = operation
        self.operations.append(operation)
        pending = 0
        for dependency in (stream.tail, *after):
            if dependency is not None and dependency.ended_at < 0.0:
                pending += 1
                if dependency.dependents is None:
                    dependency.dependents = [operation]
                else:
                    dependency.dependents.append(operation)
        operation.pending = pending
        stream.tail = operation
        if self.recorder is not None:
            self.recorder.enqueued(operation, after, active)
        if pending == 0:
            if thread is not None:
                operation.waited_for = thread.last_ended
            if operation.gated:
                admitted: list[Operation] = []
                self._ready(operation, admitted)
                if admitted:
                    self._start(admitted, now)
            elif operation.allocates or operation.duration == 0.0:
                self._start([operation], now)
            else:
                self.sharing.start(operation, now)
        return operation

    def close(self) -> None:
        """End the simulation, which leaves the records.

        What refers back to what it belongs to is let go: in circles, records would stay until the garbage collector
        finds them, and over many simulations finding them takes a third of the time.
        """
        for stream in {operation.stream for operation in self.operations}:
            stream.tail = stream.last_ended = None
        for thread in self._threads:
            thread.end = thread.last_ended = thread.busy = thread.code = None
        for operation in self.running.values():
            operation.waiting = None
        self.running.clear()
        self.active = None
        self.env.close()

    def _ready(self, operation: Operation, admitted: list[Operation]) -> None:
        """Add what may start now that `operation` is ready: itself, its whole collective, or nothing yet."""
        if operation.rendezvous is not None:
            admitted += [peer for peer in operation.rendezvous.arrive(operation) if self._admit(peer)]
            return
        if not operation.allocates and len(operation.holds) == 1:  # most copies, which hold a copy engine
            server = operation.holds[0]
            if server.busy == server.slots:
                server.join(operation)
                return
            if not server.waiting:
                server.busy += 1
                admitted.append(operation)
                return
        if self._admit(operation):
            admitted.append(operation)

    def _admit(self, operation: Operation) -> bool:
        """Take its servers' slots and its room in pools if all are free, else wait for all of them."""
        gates = _gates(operation) if operation.allocates else operation.holds
        if not _admitted(operation, gates):
            new = [gate for gate in gates if operation not in gate.waiting]
            for gate in new:
                gate.join(operation)
            # One that comes later may be the first, by its priority, where others wait for another gate.
            if not new or not _admitted(operation, gates):
                return False
        for gate in gates:
            if gate.waiting:
                gate.leave(operation)
        for server in operation.holds:
            server.busy += 1
        if gates is not operation.holds:
            for tier, occupant, nbytes in operation.allocates:
                if tier.waits:
                    tier.allocate(occupant, nbytes)
        return True

    def _start(self, operations: list[Operation], now: float) -> None:
        for operation in operations:  # grows: what takes no time ends at once, without recursion
            if operation.allocates:
                for tier, occupant, nbytes in operation.allocates:
                    if not tier.waits:
                        tier.allocate(occupant, nbytes)
            if operation.duration > 0.0:
                self.sharing.start(operation, now)
            else:
                operation.started_at = operation.ended_at = now
                self._release(operation, operations)

    def _release(self, operation: Operation, released: list[Operation]) -> None:
        """Account for the end of `operation`; adds what may start now."""
        operation.stream.last_ended = operation
        if operation.holds or operation.frees:
            for server in operation.holds:
                server.busy -= 1
            for tier, occupant, nbytes in operation.frees:
                tier.free(occupant, nbytes)
                if tier.waiting:
                    self._admit_waiting(tier, operation, released)
            for server in operation.holds:
                if server.waiting:
                    self._admit_waiting(server, operation, released)
        if operation.dependents is not None:
            for dependent in operation.dependents:
                dependent.pending -= 1
                if dependent.pending == 0:
                    dependent.waited_for = operation
                    if dependent.gated:
                        self._ready(dependent, released)
                    else:
                        released.append(dependent)
            operation.dependents = None
        if operation.waiting is not None:
            for thread in operation.waiting:
                self._woken.append((self.sharing.noted, thread))
            operation.waiting = None

    def _admit_waiting(self, gate: Server | Tier, ended: Operation, released: list[Operation]) -> None:
        """Admit those who wait at a gate, in their order, as long as there is room.

        Who is admitted no longer stands before others at the other gates that it waited at.
        """
        gates = [gate]
        for each in gates:  # grows
            while each.waiting:
                first = each.waiting[0]
                if not self._admit(first):
                    break
                first.waited_for = ended
                released.append(first)
                gates += [other for other in _gates(first) if other is not each]


def code_at(code: Any) -> Iterator[FrameType]:
    """Where a thread's code stands, from the outermost generator to the one that waits."""
    while isinstance(code, GeneratorType) and code.gi_frame is not None:
        yield code.gi_frame
        code = code.gi_yieldfrom


def _hint(found: object) -> str:
    return ": expected `yield from` before code" if isinstance(found, Iterable) else ""


def _admitted(operation: Operation, gates: tuple[Server | Tier, ...]) -> bool:
    for gate in gates:  # noqa: SIM110  # `all` takes twice as long
        if not gate.admits(operation):
            return False
    return True


def _gates(operation: Operation) -> tuple[Server | Tier, ...]:
    """What it may have to wait for: its servers, and the pools that it takes from."""
    gates: tuple[Server | Tier, ...] = operation.holds
    for tier, _, _ in operation.allocates:
        if tier.waits and tier not in gates:
            gates = (*gates, tier)
    return gates
