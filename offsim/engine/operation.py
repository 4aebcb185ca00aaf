"""One activity: work with demands on resources, ordered behind other activities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

from simpy import Environment, Event

if TYPE_CHECKING:
    from offsim.engine.engine import Stream
    from offsim.engine.server import Server
    from offsim.engine.sharing import Resource
    from offsim.engine.tier import Tier

Usage = tuple[tuple["Resource", float], ...]
"""Demands at full speed: (resource, amount per second)."""

MemoryChange = tuple["Tier", str, float]
"""(tier, occupant, bytes)."""


class Operation:
    """Work enqueued on a stream; a thread that yields it waits for its end. Also its record once it has run.

    `duration` is the time it takes with nothing else running. While resources are contended it progresses at
    `fraction` of full speed; `slowdowns` keeps (time, fraction, bottleneck) whenever that changed. It starts once it
    holds a slot of each of the servers in `holds` and the tiers in `allocates` have room.
    """

    __slots__ = (
        "allocates",
        "bytes",
        "dependents",
        "duration",
        "ended",
        "ended_at",
        "ends_at",
        "enqueued_at",
        "fraction",
        "frees",
        "gated",
        "holds",
        "index",
        "iteration",
        "kind",
        "layer",
        "name",
        "pending",
        "phase",
        "priority",
        "remaining",
        "rendezvous",
        "slowdowns",
        "started_at",
        "stream",
        "subgroup",
        "updated_at",
        "usage",
        "waited_for",
        "waiting",
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
        holds: tuple[Server, ...] = (),
        priority: int = 0,
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
        self.holds = holds
        self.gated = False
        """Whether it may have to wait for others than those it is behind; known once it is enqueued."""
        self.priority = priority
        self.iteration = 0
        self.phase = ""
        self.index = -1
        self.pending = 0
        self.dependents: list[Operation] | None = None
        self.waited_for: Operation | None = None
        self.enqueued_at = 0.0
        self.started_at = -1.0
        self.ended_at = -1.0
        self.fraction = 1.0
        self.remaining = duration
        self.updated_at = 0.0
        self.ends_at = inf
        """When it will end as things are."""
        self.slowdowns: list[tuple[float, float, Resource | None]] | None = None
        self.ended: Event | None = None
        """The event of its end, where a process of SimPy waits for it."""
        self.waiting: list[Iterator[Operation]] | None = None
        """The threads that wait for its end."""

    def __repr__(self) -> str:
        return f"Operation({self.name!r} on {self.stream!r})"

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended_at >= 0.0

    def precedes(self, dependent: Operation) -> None:
        """Have another operation wait for the end of this one."""
        if self.dependents is None:
            self.dependents = [dependent]
        else:
            self.dependents.append(dependent)
        dependent.pending += 1

    def completion(self, env: Environment) -> Event:
        """The event of its end, for SimPy processes."""
        if self.ended is None:
            self.ended = Event(env)
            if self.done:
                self.ended.succeed()
        return self.ended


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
