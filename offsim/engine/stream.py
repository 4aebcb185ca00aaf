"""In-order queues of operations, and the engine that runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simpy import Environment

from offsim.engine.fluid import FluidSharing
from offsim.engine.operation import Operation


class Stream:
    """Runs what is enqueued on it one after another: a CUDA stream, or a host thread's own work."""

    __slots__ = ("last_ended", "name", "rank", "tail")

    def __init__(self, name: str, rank: int = 0) -> None:
        self.name = name
        self.rank = rank
        self.tail: Operation | None = None
        self.last_ended: Operation | None = None

    def __repr__(self) -> str:
        return f"Stream({self.name!r}, rank={self.rank})"


class Engine:
    """Environment, sharing and the record of all operations, in the order in which they were enqueued."""

    def __init__(self, stretch: Mapping[str, float] | None = None) -> None:
        self.env = Environment()
        self.fluid = FluidSharing(self.env, self._finished)
        self.stretch = stretch
        """Kind of operation -> how many times as long it takes, at the same demands per second."""
        self.operations: list[Operation] = []
        self.iteration = 0

    def enqueue(
        self, operation: Operation, phase: str, after: Iterable[Operation | None] = (), issuer: Stream | None = None
    ) -> Operation:
        """Put `operation` on its stream; it starts once its predecessor and all of `after` have ended.

        `issuer` is the host thread that enqueues it: what that thread did last is what the operation waited
        for when nothing else held it back.
        """
        stream = operation.stream
        if self.stretch is not None and operation.kind in self.stretch:
            operation.duration *= self.stretch[operation.kind]
            operation.remaining = operation.duration
        operation.index = len(self.operations)
        operation.enqueued_at = self.env.now
        operation.phase = phase
        operation.iteration = self.iteration
        self.operations.append(operation)
        tail = stream.tail
        if tail is not None and tail.ended_at < 0.0:
            tail.dependents.append(operation)
            operation.pending += 1
        for dependency in after:
            if dependency is not None and dependency.ended_at < 0.0:
                dependency.dependents.append(operation)
                operation.pending += 1
        stream.tail = operation
        if operation.pending == 0:
            if issuer is not None:
                operation.waited_for = issuer.last_ended
            self._start(self._admitted(operation))
        return operation

    def close(self) -> None:
        """End the simulation, which leaves the records.

        What refers back to what it belongs to is let go: in circles, records would stay until the garbage collector
        finds them, and over many simulations finding them takes a third of the time.
        """
        for operation in self.operations:
            operation.stream.tail = operation.stream.last_ended = None
        del self.fluid

    def _admitted(self, operation: Operation) -> list[Operation]:
        """What may start now that `operation` is ready: itself, its whole collective, or nothing yet."""
        if operation.rendezvous is None and operation.engine is None:
            return [operation]
        ready = [operation] if operation.rendezvous is None else operation.rendezvous.arrive(operation)
        return [peer for peer in ready if peer.engine is None or peer.engine.admit(peer)]

    def _start(self, operations: list[Operation]) -> None:
        for operation in operations:  # grows: what takes no time ends at once, without recursion
            for tier, occupant, nbytes in operation.allocates:
                tier.allocate(occupant, nbytes)
            if operation.duration > 0.0:
                self.fluid.start(operation)
            else:
                operation.started_at = operation.ended_at = self.env.now
                operations += self._released(operation)

    def _finished(self, operation: Operation) -> None:
        self._start(self._released(operation))

    def _released(self, operation: Operation) -> list[Operation]:
        """Account for the end of `operation`: what may start now."""
        for tier, occupant, nbytes in operation.frees:
            tier.free(occupant, nbytes)
        operation.stream.last_ended = operation
        released: list[Operation] = []
        if operation.engine is not None:
            following = operation.engine.release()
            if following is not None:
                following.waited_for = operation
                released.append(following)
        for dependent in operation.dependents:
            dependent.pending -= 1
            if dependent.pending == 0:
                dependent.waited_for = operation
                released += self._admitted(dependent)
        operation.dependents.clear()
        operation.signal()
        return released
