"""How far predictions on a validated profile were from measured runs, without simulating those again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import available_profiles, load_profile
from offsim.validation.run_table import HELD_OUT

ACCURACY = Path(__file__).with_name("accuracy.json")
"""Errors on the shipped runs: hardware -> {runs, median, p90} of forward + backward + step, as shares.

`python -m offsim.validation.page` writes it.
"""


LeftOut = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Hardware -> model left out of the fit -> phase -> {n, median, p90, worst}, in percent."""


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


def held_out() -> LeftOut:
    """Return the errors on models left out of the fit, as the fit wrote them; empty where it did not."""
    found: LeftOut = orjson.loads(HELD_OUT.read_bytes()) if HELD_OUT.exists() else {}
    return found
