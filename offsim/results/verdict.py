"""The verdict on a scenario that does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from offsim.engine import OutOfMemory
from offsim.platform.platform import TrackedTier
from offsim.programs.run import Run
from offsim.results.limits import job_phases
from offsim.results.remedies import Remedy
from offsim.results.units import format_memory, format_time


class DoesNotFit(Exception):
    """Raised on access to a time of a scenario that does not fit in memory; its text is the verdict."""


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
    _find_remedies: Callable[[], tuple[Remedy, ...]] = field(repr=False, compare=False)

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """Single changes that make it fit, found by simulation; sorted by GPUs, then by time."""
        return self._find_remedies()

    def __str__(self) -> str:
        held = ", ".join(f"{name} {format_memory(nbytes)}" for name, nbytes in self.occupants.items())
        return (
            f"does not fit: {self.tier} memory, {self.phase}, at {format_time(self.time_s)}: {self.occupant} asks for "
            f"{format_memory(self.asked_bytes)} where {format_memory(self.used_bytes)} of "
            f"{format_memory(self.capacity_bytes)} are taken" + (f" ({held})" if held else "")
        )


def verdict_of(run: Run, cause: OutOfMemory, find_remedies: Callable[[], tuple[Remedy, ...]]) -> Verdict:
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
        occupants=dict(sorted(held.items(), key=lambda item: (-item[1], item[0]))),
        _find_remedies=find_remedies,
    )


def _phase_of(run: Run, cause: OutOfMemory) -> str:
    if not run.engine.operations:
        return "set-up"
    phase = next((rank.host.phase for rank in run.ranks if rank.gpu_memory is cause.tier), run.ranks[0].host.phase)
    step = sum(done.name == phase for done in job_phases(run))
    return f"{phase} of micro-step {step}" if step else phase
