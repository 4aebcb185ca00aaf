"""Pools of buffers, which are waited for where all are taken, and caches; both last over iterations."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from offsim.engine import MemoryChange, Tier

IN_USE = "buffers in use"


class Pool:
    """`slots` buffers of `nbytes` each, whose memory is taken from a tier for good."""

    def __init__(self, tier: Tier, name: str, slots: int, nbytes: float) -> None:
        tier.allocate(name, slots * nbytes)
        self.slots = tier.like(name, slots, when_full="wait")

    @property
    def free(self) -> int:
        """Buffers that nobody uses or waits for."""
        return 0 if self.slots.waiting else round(self.slots.capacity - self.slots.used)

    def buffers(self, count: int = 1) -> tuple[MemoryChange, ...]:
        """Buffers for an operation's `allocates`, which then waits for them, or `frees`."""
        return ((self.slots, IN_USE, float(count)),) if count else ()

    def state(self) -> Tier:
        """The tier of buffers, of which those in use matter."""
        return self.slots


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


class FurthestNextUse:
    """A cache that gives up the key whose next use is furthest off: no rule has fewer misses (Belady, 1966).

    `uses` are the keys in the order of their uses, which repeats.
    """

    def __init__(self, slots: int, uses: Sequence[int]) -> None:
        if slots < 1:
            raise ValueError(f"slots(={slots}) must be >= 1")
        self.slots = slots
        self._uses = tuple(uses)
        self._at = 0
        self._kept: set[int] = set()
        self._places: dict[int, list[int]] = {}
        for place, key in enumerate(self._uses):
            self._places.setdefault(key, []).append(place)

    def __contains__(self, key: int) -> bool:
        return key in self._kept

    def use(self, key: int) -> int | None:
        """Keep `key`, whose turn it is; returns the key that is given up for it."""
        if key != self._uses[self._at]:
            raise ValueError(f"key(={key}) must be {self._uses[self._at]}, whose turn it is")
        self._at = (self._at + 1) % len(self._uses)
        given_up = None
        if key not in self._kept and len(self._kept) == self.slots:
            given_up = max(self._kept, key=self._until_use)
            self._kept.remove(given_up)
        self._kept.add(key)
        return given_up

    def drop(self, key: int) -> None:
        """Keep `key` no longer."""
        self._kept.discard(key)

    def _until_use(self, key: int) -> int:
        places = self._places[key]
        following = bisect_left(places, self._at)
        return places[following] - self._at if following < len(places) else places[0] + len(self._uses) - self._at

    def state(self) -> list[int]:
        """Whose turn it is, by number, then the keys kept."""
        return [self._at, *sorted(self._kept)]


def pinned_bytes(nbytes: float) -> float:
    """Bytes that CUDA's caching host allocator takes for a pinned buffer: the next power of two."""
    return 2.0 ** max(0, (round(nbytes) - 1).bit_length()) if nbytes >= 1 else 0.0
