"""Servers: they hold a few operations at a time, in order of arrival or of priority."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offsim.engine.operation import Operation

_priority = attrgetter("priority")


class Turns:
    """Operations that wait for their turn: the lowest priority first, then first come, first served."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Operation] = []

    def next_is(self, operation: Operation) -> bool:
        """Whether nobody waits before it."""
        return not self.waiting or self.waiting[0] is operation

    def join(self, operation: Operation) -> None:
        """Wait."""
        insort(self.waiting, operation, key=_priority)

    def leave(self, operation: Operation) -> None:
        """Stop waiting."""
        if self.waiting and self.waiting[0] is operation:
            del self.waiting[0]


class Server(Turns):
    """Serves `slots` operations at once: a copy engine, a lock on a storage tier, a pool of workers.

    Nobody overtakes at a server, and all keep the same order of turns; so an operation that needs several servers gets
    them all at once, without deadlock.
    """

    __slots__ = ("busy", "name", "slots")

    def __init__(self, name: str = "", slots: int = 1) -> None:
        if not slots >= 1:
            raise ValueError(f"{name}: slots(={slots}) must be >= 1")
        super().__init__()
        self.name = name
        self.slots = slots
        self.busy = 0

    def admits(self, operation: Operation) -> bool:
        """Whether a slot is free for it."""
        return self.busy < self.slots and (not self.waiting or self.waiting[0] is operation)
