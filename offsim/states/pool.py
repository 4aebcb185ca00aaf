"""Pools of buffers, which are waited for where all are taken, and caches; both last over iterations."""

from __future__ import annotations

from offsim.engine import MemoryChange, Tier

IN_USE = "buffers in use"


class Pool:
    """`slots` buffers of `nbytes` each, whose memory is taken from a tier for good."""

    def __init__(self, tier: Tier, name: str, slots: int, nbytes: float) -> None:
        tier.allocate(name, slots * nbytes)
        self.slots = Tier(tier.env, name, slots, when_full="wait")

    @property
    def free(self) -> int:
        """Buffers that nobody uses or waits for."""
        return 0 if self.slots.waiting else round(self.slots.capacity - self.slots.used)

    def buffers(self, count: int = 1) -> tuple[MemoryChange, ...]:
        """Buffers for an operation's `allocates`, which then waits for them, or `frees`."""
        return ((self.slots, IN_USE, float(count)),) if count else ()

    def state(self) -> float:
        """Buffers in use."""
        return self.slots.used


class LastKept:
    """A cache that keeps the keys used last: a pass in the reverse order finds them first."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._kept: dict[int, None] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._kept

    def use(self, key: int) -> None:
        """Keep `key`, and no more than the last `slots` keys."""
        self._kept.pop(key, None)
        self._kept[key] = None
        while len(self._kept) > self.slots:
            del self._kept[next(iter(self._kept))]

    def state(self) -> list[int]:
        """The keys kept, the oldest first."""
        return list(self._kept)


def pinned_bytes(nbytes: float) -> float:
    """Bytes that CUDA's caching host allocator takes for a pinned buffer: the next power of two."""
    return 2.0 ** max(0, (round(nbytes) - 1).bit_length()) if nbytes >= 1 else 0.0
