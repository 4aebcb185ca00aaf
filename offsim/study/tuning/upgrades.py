"""What one better part would buy: the hardware with one thing improved, and the settings tuned to it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from offsim.platform.profiles import scenario_profile
from offsim.scenario import Scenario, load_scenario
from offsim.study.tuning.tune import Mapper, Outcome, Tuning, tune

FACTOR = 2.0

UPGRADES: Mapping[str, tuple[str, ...]] = {
    "PCIe x2": (
        "link.h2d_bytes_per_s",
        "link.d2h_bytes_per_s",
        "link.duplex_bytes_per_s",
        "link.pageable_h2d_bytes_per_s",
        "link.pageable_d2h_bytes_per_s",
        "link.uplink_bytes_per_s",
    ),
    "host memory bandwidth x2": ("host.memory_bytes_per_s",),
    "CPU cores x2": (
        "host.cores",
        "host.cores_per_rank",
        "host.adam_params_per_s",
        "host.scale_params_per_s",
        "host.downcast_params_per_s",
        "host.fresh_downcast_params_per_s",
        "host.upcast_params_per_s",
    ),
    "GPU memory x2": ("gpu.memory_bytes",),
}
"""Name -> the values that are multiplied. More cores compute faster, until host memory bandwidth is full."""


@dataclass(frozen=True)
class Upgrade:
    """An upgrade, and the best setting with it; None where nothing fits with it either."""

    name: str
    best: Outcome | None


def upgraded(scenario: Scenario, name: str) -> Scenario:
    """The scenario on its hardware with the upgrade, beside the changes that it has."""
    profile = scenario_profile(scenario)
    overrides = []
    for field in UPGRADES[name]:
        section, key = field.split(".")
        value = getattr(getattr(profile, section), key)
        if value is not None:
            overrides.append(f"hardware_changes.{field}={FACTOR * value!r}")
    return load_scenario(scenario, overrides)


def upgrades(tuning: Tuning, mapper: Mapper = map) -> list[Upgrade]:
    """Tune again with each upgrade alone, for the fastest setting only.

    What an upgrade adds can be left unused, so the best with it is at least the best without: faster CPU work takes
    host memory bandwidth from the copies beside it, and where these matter more that is a loss.
    """
    asked = replace(tuning.question, fastest=1, with_front=False)
    found = []
    for name in UPGRADES:
        with_it = tune(upgraded(tuning.given.scenario, name), asked, mapper).best
        bests = [best for best in (tuning.best, with_it) if best is not None]
        found.append(Upgrade(name, max(bests, key=lambda best: best.tokens_per_s, default=None)))
    return found
