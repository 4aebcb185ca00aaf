"""What one better part would buy: the hardware with one thing improved, and the settings tuned to it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from offsim.profiles import scenario_profile
from offsim.scenario import Scenario, load_scenario
from offsim.simulation import Source
from offsim.study.tune import Mapper, Question, Tuning, tune

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
    """An upgrade, and what tuning found with it."""

    name: str
    tuning: Tuning


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


def upgrades(scenario: Source, question: Question | None = None, mapper: Mapper = map) -> list[Upgrade]:
    """Tune the scenario again with each upgrade alone, for the fastest setting only."""
    chosen = load_scenario(scenario)
    asked = replace(question or Question(), fastest=1, with_front=False)
    return [Upgrade(name, tune(upgraded(chosen, name), asked, mapper)) for name in UPGRADES]
