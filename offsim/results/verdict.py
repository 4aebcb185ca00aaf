"""The verdict on a scenario that does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from offsim.engine import OutOfMemory
from offsim.platform.platform import TrackedTier
from offsim.programs.run import Run
from offsim.results.limits import job_phases, largest_first
from offsim.results.units import format_memory, format_time

if TYPE_CHECKING:
    from offsim.results.remedies import Remedies, Remedy


class DoesNotFit(Exception):
    """Raised on access to a time of a scenario that does not fit in memory; its text is the verdict."""


@dataclass(frozen=True)
class Shortage:
    """A tier that is too small, and what it would hold at most if all tiers had room. Bytes."""

    tier: str
    needed_bytes: float
    capacity_bytes: float

    @property
    def missing_bytes(self) -> float:
        """How much more it would have to hold."""
        return self.needed_bytes - self.capacity_bytes


@dataclass(frozen=True)
class Verdict:
    """The allocation that failed, its tier and instant, and the occupants. Host bytes are of all ranks of a node."""

    tier: str
    time_s: float
    """Since the start of the measured iteration; negative before it."""
    phase: str
    occupant: str
    asked_bytes: float
    used_bytes: float
    capacity_bytes: float
    occupants: dict[str, float]
    """Occupant -> bytes, largest first."""
    _unbounded: Callable[[], Run] = field(repr=False, compare=False)
    _find_remedies: Callable[[], Remedies] = field(repr=False, compare=False)

    @cached_property
    def shortages(self) -> tuple[Shortage, ...]:
        """Every tier that is too small, by a simulation in which all have room; equal tiers, as GPUs, one by one."""
        needed = {
            tier.name: (tier.memory.peak * tier.scale, tier.capacity) for tier in self._unbounded().platform.tiers
        }
        # Where a pool has too few buffers for one operation, that simulation ends early too.
        most, capacity = needed.get(self.tier, (0.0, self.capacity_bytes))
        needed[self.tier] = max(most, self.used_bytes + self.asked_bytes), capacity
        return tuple(Shortage(name, most, has) for name, (most, has) in needed.items() if most > has)

    @cached_property
    def _found(self) -> Remedies:
        return self._find_remedies()

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """Changes that make it fit, found by simulation: single ones if there are any, else of several things at once.

        Sorted by GPUs, then by time.
        """
        return self._found.changes

    @property
    def tried(self) -> tuple[str, ...]:
        """Changes with which it does not fit either, a text for each kind."""
        return self._found.in_vain

    @property
    def machine(self) -> Remedy | None:
        """The shipped profile with the least GPU memory, then host memory, on which it fits as it is."""
        return self._found.machine

    def __str__(self) -> str:
        held = ", ".join(f"{name} {format_memory(nbytes)}" for name, nbytes in self.occupants.items())
        return (
            f"does not fit: {self.tier} memory, {self.phase}, at {format_time(self.time_s)}: {self.occupant} asks for "
            f"{format_memory(self.asked_bytes)} where {format_memory(self.used_bytes)} of "
            f"{format_memory(self.capacity_bytes)} are taken" + (f" ({held})" if held else "")
        )


def verdict_of(
    run: Run, cause: OutOfMemory, unbounded: Callable[[], Run], find_remedies: Callable[[], Remedies]
) -> Verdict:
    """The verdict on a run that ran out of memory."""
    pool = TrackedTier(cause.tier, "memory")
    tier = next((tier for tier in run.platform.tiers if tier.memory is cause.tier), pool)
    held = {name: nbytes * tier.scale for name, nbytes in cause.occupants.items() if nbytes > 0}
    return Verdict(
        tier=tier.name,
        time_s=cause.time - run.started_at,
        phase=_phase_of(run, cause),
        occupant=cause.occupant,
        asked_bytes=float(cause.asked * tier.scale),
        used_bytes=float(sum(held.values())),
        capacity_bytes=float(tier.capacity),
        occupants=largest_first(held),
        _unbounded=unbounded,
        _find_remedies=find_remedies,
    )


def _phase_of(run: Run, cause: OutOfMemory) -> str:
    if not run.engine.operations:
        return "set-up"
    phase = next((rank.host.phase for rank in run.ranks if rank.gpu_memory is cause.tier), run.ranks[0].host.phase)
    step = sum(done.name == phase for done in job_phases(run))
    return f"{phase} of micro-step {step}" if step else phase
