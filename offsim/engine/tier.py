"""Memory tiers with occupants, high-water marks and a series over time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from simpy import Environment

from offsim.engine.server import Turns

if TYPE_CHECKING:
    from offsim.engine.operation import Operation

Columns = tuple[Sequence[float], Sequence[str], Sequence[float], Sequence[float]]
ROUNDING = 0.5
"""Bytes that an occupant may free more than it holds: sums of fractions of bytes are rounded."""


class OutOfMemory(Exception):
    """A tier cannot hold an allocation. Carries what a verdict needs."""

    def __init__(self, tier: Tier, occupant: str, asked: float, time: float) -> None:
        super().__init__(tier, occupant, asked, time)
        self.tier = tier
        self.occupant = occupant
        self.asked = asked
        self.time = time
        self.occupants = dict(tier.occupants)

    def __str__(self) -> str:
        return f"{self.tier.name}: {self.asked:.0f} B for {self.occupant} do not fit at {self.time:.6f} s"


class Tier(Turns):
    """Bytes of one memory, by occupant, over time.

    An allocation beyond the capacity fails with OutOfMemory; where `when_full` is "wait", as in a pool of buffers, the
    operation that allocates waits for room.
    """

    __slots__ = (
        "_changed",
        "_held",
        "_times",
        "_used",
        "capacity",
        "env",
        "grows",
        "name",
        "occupants",
        "used",
        "waits",
    )

    def __init__(
        self, env: Environment, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail"
    ) -> None:
        super().__init__()
        self.env = env
        self.name = name
        self.capacity = capacity
        self.waits = when_full == "wait"
        self.grows = False
        """Whether it has room beyond its capacity, to see what would be needed."""
        self.occupants: dict[str, float] = {}
        self.used = 0.0
        self._times = array("d")
        self._changed: list[str] = []
        self._held = array("d")
        self._used = array("d")

    @property
    def columns(self) -> Columns:
        """Times, occupants, bytes of these, all bytes: after each change."""
        return self._times, self._changed, self._held, self._used

    @property
    def series(self) -> list[tuple[float, str, float, float]]:
        """(time, occupant, its bytes, all bytes) after each change."""
        return list(zip(*self.columns, strict=True))

    def like(self, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail") -> Tier:
        """Make another tier beside this one."""
        return Tier(self.env, name, capacity, when_full)

    @property
    def peak(self) -> float:
        """The most bytes in use at any time."""
        return max(self._used, default=0.0)

    def admits(self, operation: Operation) -> bool:
        """Whether there is room for all that it allocates here; raises OutOfMemory where there never is."""
        asked = 0.0
        for tier, occupant, nbytes in operation.allocates:
            if tier is self:
                asked += nbytes
                if asked > self.capacity:
                    raise OutOfMemory(self, occupant, asked, self.env.now)
        return self.used + asked <= self.capacity + ROUNDING and self.next_is(operation)

    def allocate(self, occupant: str, nbytes: float) -> None:
        """Add bytes; raises OutOfMemory where they exceed the capacity."""
        if not nbytes >= 0:
            raise ValueError(f"{self.name}: nbytes(={nbytes}) of {occupant} must be >= 0")
        if self.used + nbytes > self.capacity and not self.waits and not self.grows:
            raise OutOfMemory(self, occupant, nbytes, self.env.now)
        self._change(occupant, self.occupants.get(occupant, 0.0), nbytes)

    def free(self, occupant: str, nbytes: float) -> None:
        """Give bytes back; an occupant never holds less than nothing."""
        held = self.occupants.get(occupant, 0.0)
        if not 0 <= nbytes <= held + ROUNDING:
            raise ValueError(f"{self.name}: freeing {nbytes:.0f} B of {occupant}, which holds {held:.0f} B")
        self._change(occupant, held, -nbytes if held >= nbytes <= self.used else -min(held, self.used))

    def _change(self, occupant: str, held: float, nbytes: float) -> None:
        self.occupants[occupant] = held = held + nbytes
        self.used += nbytes
        self._times.append(self.env.now)
        self._changed.append(occupant)
        self._held.append(held)
        self._used.append(self.used)
