"""Memory tiers with occupants, high-water marks and a series over time."""

from __future__ import annotations

from simpy import Environment


class OutOfMemory(Exception):
    """A tier cannot hold an allocation. Carries what a verdict needs."""

    def __init__(self, tier: MemoryTier, occupant: str, asked: float, time: float) -> None:
        super().__init__(f"{tier.name}: {asked:.0f} B for {occupant} do not fit at {time:.6f} s")
        self.tier = tier
        self.occupant = occupant
        self.asked = asked
        self.time = time
        self.occupants = dict(tier.occupants)


class MemoryTier:
    """Bytes of one memory, by occupant. `series` has (time, occupant, its bytes, all bytes) per change."""

    __slots__ = ("capacity", "env", "name", "occupants", "peak", "peak_at", "peak_occupants", "series", "used")

    def __init__(self, env: Environment, name: str, capacity: float) -> None:
        self.env = env
        self.name = name
        self.capacity = capacity
        self.occupants: dict[str, float] = {}
        self.used = 0.0
        self.series: list[tuple[float, str, float, float]] = []
        self.reset_peak()

    def reset_peak(self) -> None:
        """Start a new high-water mark at the present use."""
        self.peak = self.used
        self.peak_at = self.env.now
        self.peak_occupants = dict(self.occupants)

    def allocate(self, occupant: str, nbytes: float) -> None:
        """Add bytes; raises OutOfMemory where they exceed the capacity."""
        if self.used + nbytes > self.capacity:
            raise OutOfMemory(self, occupant, nbytes, self.env.now)
        self._change(occupant, nbytes)
        if self.used > self.peak:
            self.peak = self.used
            self.peak_at = self.env.now
            self.peak_occupants = dict(self.occupants)

    def free(self, occupant: str, nbytes: float) -> None:
        """Give bytes back; an occupant never holds less than nothing."""
        if nbytes > self.occupants.get(occupant, 0.0) + 0.5:
            raise ValueError(f"{self.name}: freeing {nbytes:.0f} B of {occupant}, which holds less")
        self._change(occupant, -nbytes)

    def _change(self, occupant: str, nbytes: float) -> None:
        held = self.occupants.get(occupant, 0.0) + nbytes
        self.occupants[occupant] = held
        self.used += nbytes
        self.series.append((self.env.now, occupant, held, self.used))
