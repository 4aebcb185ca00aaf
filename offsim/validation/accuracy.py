"""How far predictions on a validated profile were from measured runs, without simulating those again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from offsim.inputs.packaged import packaged_folder
from offsim.platform.hardware import HardwareProfile
from offsim.platform.held_out import FILE_NAME, Groups, read_held_out
from offsim.platform.profiles import available_profiles, load_profile

ACCURACY = Path(__file__).with_name("accuracy.json")
"""Errors on the shipped runs: hardware -> {runs, median, p90} of forward + backward + step, as shares.

`python -m offsim.validation.page` writes it.
"""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Errors of forward + backward + step on measured runs, without their sign: shares of what was measured."""

    runs: int
    median: float
    p90: float


def accuracy_of(profile: HardwareProfile) -> Accuracy | None:
    """Return the errors on the runs of a profile's hardware; None for one that is not, as it is, among the shipped."""
    if profile.name not in available_profiles() or load_profile(profile.name) != profile:
        return None
    found = orjson.loads(ACCURACY.read_bytes()).get(profile.name)
    return Accuracy(**found) if found else None


def held_out() -> dict[str, Groups]:
    """Return hardware -> group left out of the fit -> phase -> errors, of the profiles that come with offsim."""
    return read_held_out(packaged_folder("hardware_profiles") / FILE_NAME)
