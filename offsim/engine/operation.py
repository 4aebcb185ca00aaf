"""One activity: work with demands on resources, ordered behind other activities."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

from simpy import Environment, Event

if TYPE_CHECKING:
    from offsim.engine.crowd import Change, Member
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
    `fraction` of full speed. It starts once it holds a slot of each of the servers in `holds` and the tiers in
    `allocates` have room.
    """

    __slots__ = (
        "allocates",
        "bytes",
        "changes",
        "dependents",
        "duration",
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
        "member",
        "name",
        "pending",
        "phase",
        "priority",
        "remaining",
        "rendezvous",
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
        nbytes: float = 0.0,
        subgroup: int = -1,
        layer: int = -1,
        allocates: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
        *,
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
        gated = rendezvous is not None or holds != ()
        for tier, _, _ in allocates:
            gated = gated or tier.waits
        self.gated = gated
        """Whether it may have to wait for others than those it is behind."""
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
        self.ends_at = inf
        """When it will end as things are, where that is known."""
        self.member: Member | None = None
        """Its part in the crowd that it is in, or was in at its end."""
        self.fraction = 1.0
        self.remaining = duration
        self.updated_at = 0.0
        """Since when it has gone at this fraction, and what remained then; in a crowd, as last worked out."""
        self.changes: list[Change] | None = None
        """Changes of its speed until it joined its crowd."""
        self.waiting: list[Iterator[Operation]] | None = None
        """The threads that wait for its end."""

    def __repr__(self) -> str:
        return f"Operation({self.name!r} on {self.stream!r})"

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended_at >= 0.0

    @property
    def slowdowns(self) -> list[Change] | None:
        """(time, fraction, bottleneck) whenever its speed changed; None where it never did."""
        if self.member is None:
            return self.changes
        changes, until = self.member.crowd.changes, self.ended_at if self.done else inf
        return (self.changes or []) + changes[self.member.joined + 1 : bisect_left(changes, (until,))]

    def change_speed(self, change: Change) -> float:
        """Go on at another fraction of full speed; returns what remains of the work alone."""
        now, fraction, bottleneck = change
        self.remaining = remaining = self.remaining - (now - self.updated_at) * self.fraction
        self.updated_at = now
        self.fraction = fraction
        if self.changes is not None:
            self.changes.append(change)
        elif bottleneck is not None:
            self.changes = [change]
        return remaining

    def leave(self) -> None:
        """Be in no crowd any longer."""
        if self.member is not None:
            crowd = self.member.crowd
            crowd.follow(self, self.member)
            self.changes = self.slowdowns
            self.member = None
            crowd.lose()

    def left(self, now: float) -> float:
        """Seconds of work alone that it still has."""
        if self.started_at < 0.0 or self.done:
            return self.remaining
        if self.member is not None:
            self.member.crowd.follow(self, self.member)
        return self.remaining - (now - self.updated_at) * self.fraction

    def completion(self, env: Environment) -> Event:
        """An event of its end, for SimPy processes."""
        event = Event(env)
        if self.done:
            event.succeed()
        else:
            self.waiting = [*(self.waiting or ()), _succeed(event)]
        return event


def _succeed(event: Event) -> Iterator[Operation]:
    """What waits for an operation in the place of a thread."""
    event.succeed()
    yield from ()


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
