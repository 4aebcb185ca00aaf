"""One activity: work with demands on resources, ordered behind other activities."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simpy import Environment, Event

if TYPE_CHECKING:
    from offsim.engine.fluid import Resource
    from offsim.engine.memory import MemoryTier
    from offsim.engine.stream import Stream

Usage = tuple[tuple["Resource", float], ...]
"""Demands at full speed: (resource, amount per second)."""

MemoryChange = tuple["MemoryTier", str, float]
"""(tier, occupant, bytes)."""


class Operation:
    """Work enqueued on a stream; also its record once it has run.

    `duration` is what it takes with nothing else running. While resources are contended it progresses at
    `fraction` of full speed; `slowdowns` keeps (time, fraction, bottleneck) whenever that changed.
    """

    __slots__ = (
        "_completion",
        "allocates",
        "bytes",
        "dependents",
        "duration",
        "ended_at",
        "engine",
        "enqueued_at",
        "fraction",
        "frees",
        "index",
        "iteration",
        "kind",
        "layer",
        "name",
        "pending",
        "phase",
        "remaining",
        "rendezvous",
        "slowdowns",
        "started_at",
        "stream",
        "subgroup",
        "timer",
        "updated_at",
        "usage",
        "waited_for",
    )

    def __init__(
        self,
        stream: Stream,
        kind: str,
        name: str,
        duration: float,
        usage: Usage = (),
        *,
        nbytes: float = 0.0,
        subgroup: int = -1,
        layer: int = -1,
        allocates: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
        rendezvous: Rendezvous | None = None,
        engine: CopyEngine | None = None,
    ) -> None:
        if not duration >= 0:
            raise ValueError(f"{name}: duration(={duration}) must be >= 0")
        self.stream = stream
        self.kind = kind
        self.name = name
        self.duration = duration
        self.usage = usage
        self.bytes = nbytes
        self.subgroup = subgroup
        self.layer = layer
        self.allocates = allocates
        self.frees = frees
        self.rendezvous = rendezvous
        self.engine = engine
        self.iteration = 0
        self.phase = ""
        self.index = -1
        self.pending = 0
        self.dependents: list[Operation] = []
        self.waited_for: Operation | None = None
        self.enqueued_at = 0.0
        self.started_at = -1.0
        self.ended_at = -1.0
        self.fraction = 1.0
        self.remaining = duration
        self.updated_at = 0.0
        self.timer: Event | None = None
        self.slowdowns: list[tuple[float, float, Resource | None]] | None = None
        self._completion: Event | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended_at >= 0.0

    def completion(self, env: Environment) -> Event:
        """An event that a process can `yield` to wait for this operation."""
        if self._completion is None:
            self._completion = Event(env)
            if self.done:
                self._completion.succeed()
        return self._completion

    def signal(self) -> None:
        """Wake the processes that wait for this operation."""
        if self._completion is not None:
            self._completion.succeed()


class Rendezvous:
    """Lets the operations of a collective start together, when the last rank has arrived."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self.arrived: list[Operation] = []

    def arrive(self, operation: Operation) -> list[Operation]:
        """The operations that may start now: none, or all."""
        self.arrived.append(operation)
        if len(self.arrived) < self.ranks:
            return []
        peers, self.arrived = self.arrived, []
        for peer in peers:
            peer.waited_for = operation.waited_for
        return peers


class CopyEngine:
    """Serves one operation at a time in the order in which they become ready, as a GPU's DMA engine does."""

    def __init__(self) -> None:
        self._busy = False
        self._queue: deque[Operation] = deque()

    def admit(self, operation: Operation) -> bool:
        """Whether the operation may start now; else it is queued."""
        if self._busy:
            self._queue.append(operation)
            return False
        self._busy = True
        return True

    def release(self) -> Operation | None:
        """The operation that may start now that the present one has ended."""
        if self._queue:
            return self._queue.popleft()
        self._busy = False
        return None
