"""Pools of buffers, which are waited for where all are taken, and caches; both last over iterations."""

from __future__ import annotations

from offsim.engine import MemoryChange, Tier

BUFFERS = "buffers in use"


class Pool:
    """`slots` buffers of `nbytes` each, whose memory is taken from a tier for good."""

    def __init__(self, tier: Tier, name: str, slots: int, nbytes: float) -> None:
        tier.allocate(name, slots * nbytes)
        self.slots = Tier(tier.env, name, slots, when_full="wait")

    def state(self) -> float:
        """Buffers in use."""
        return self.slots.used

    def buffers(self, count: int = 1) -> tuple[MemoryChange, ...]:
        """Buffers for an operation's `allocates`, which then waits for them, or `frees`."""
        return ((self.slots, BUFFERS, float(count)),) if count else ()


class LastKept:
    """A cache that keeps what was used last: the next pass in reverse order finds that first."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._kept: dict[int, None] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._kept

    def state(self) -> list[int]:
        """The keys kept, the oldest first."""
        return list(self._kept)

    def keep(self, key: int) -> int | None:
        """Keep `key`; returns the one that has to go for it, which may be itself where there are no slots."""
        self._kept.pop(key, None)
        self._kept[key] = None
        if len(self._kept) <= self.slots:
            return None
        gone = next(iter(self._kept))
        del self._kept[gone]
        return gone
