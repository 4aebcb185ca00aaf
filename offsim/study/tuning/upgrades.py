"""What one better part would buy: the hardware with one thing improved, and the settings tuned to it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.study.tuning.space import Candidate
from offsim.study.tuning.tune import Mapper, Outcome, Tuning, dimensions_of, outcome_row, simulate_all

if TYPE_CHECKING:
    import pandas as pd

FACTOR = 2.0

UPGRADES: Mapping[str, tuple[str, ...]] = {
    "PCIe x2": (
        "link.h2d_bytes_per_s",
        "link.d2h_bytes_per_s",
        "link.duplex_bytes_per_s",
        "link.uplink_bytes_per_s",
    ),
    "host memory bandwidth x2": ("host.memory_bytes_per_s",),
    "CPU cores x2": (
        "host.cores",
        "host.cores_per_rank",
        "host.adam_params_per_s",
        "host.torch_adam_params_per_s",
        "host.scale_params_per_s",
        "host.downcast_params_per_s",
        "host.fresh_downcast_params_per_s",
        "host.upcast_params_per_s",
    ),
    "GPU memory x2": ("gpu.memory_bytes",),
}
"""Name -> the values that are multiplied. A faster link leaves pageable copies, which the CPU stages, as they are; more
cores compute faster, until host memory bandwidth is full."""


@dataclass(frozen=True)
class Upgrade:
    """An upgrade, and the best setting with it; None where nothing fits with it either."""

    name: str
    best: Outcome | None
    scales: tuple[str, ...]
    """The hardware's values that are multiplied by FACTOR: those that it has."""


def upgraded(scenario: Scenario, name: str) -> Scenario:
    """The scenario on its hardware with the upgrade, beside the changes that it has."""
    scaled = _scaled(scenario, name)
    return load_scenario(scenario, [f"hardware_changes.{field}={FACTOR * value!r}" for field, value in scaled.items()])


def _scaled(scenario: Scenario, name: str) -> dict[str, float]:
    """The values of the hardware, as they are, that an upgrade multiplies."""
    profile = scenario_profile(scenario)
    values = {field: attrgetter(field)(profile) for field in UPGRADES[name]}
    return {field: value for field, value in values.items() if value is not None}


def upgrades(tuning: Tuning, mapper: Mapper = map) -> list[Upgrade]:
    """Simulate the settings again with each upgrade alone: those that may be the fastest with it.

    What an upgrade adds can be left unused, so the best with it is at least the best without: faster CPU work takes
    host memory bandwidth from the copies beside it, and where these matter more that is a loss.
    """
    listed = [(name, candidate) for name in UPGRADES for candidate in _candidates(tuning, name)]
    outcomes = simulate_all([candidate for _, candidate in listed], tuning.question.headroom, mapper)
    bests = dict.fromkeys(UPGRADES, tuning.best)
    for (name, _), outcome in zip(listed, outcomes, strict=True):
        best = bests[name]
        if outcome.fits and (best is None or outcome.tokens_per_s > best.tokens_per_s):
            bests[name] = outcome
    return [Upgrade(name, best, tuple(_scaled(tuning.given.scenario, name))) for name, best in bests.items()]


def _candidates(tuning: Tuning, name: str) -> list[Candidate]:
    """The settings that may be the fastest with an upgrade.

    More memory lets in what did not fit, and makes nothing faster. A part that is so many times as fast lets in
    nothing, and makes no setting more than so many times as fast.
    """
    if all(field.endswith(".memory_bytes") for field in UPGRADES[name]):
        chosen = [outcome for outcome in tuning.outcomes if not outcome.fits]
    else:
        fastest = tuning.best.tokens_per_s if tuning.best else 0.0
        chosen = [outcome for outcome in tuning.fitting if FACTOR * outcome.tokens_per_s > fastest]
    changes = {"hardware_changes": upgraded(tuning.given.scenario, name).hardware_changes}
    return [Candidate(one.settings, one.scenario.model_copy(update=changes), one.plainness) for one in chosen]


def upgrades_table(tuning: Tuning, bought: Sequence[Upgrade]) -> pd.DataFrame:
    """The best setting as it is and with each upgrade; `gain` is the ratio of tokens per second."""
    import pandas as pd

    bests = {"as it is": tuning.best} | {upgrade.name: upgrade.best for upgrade in bought}
    found = {name: best for name, best in bests.items() if best is not None}
    axes = dimensions_of(found.values())
    rows = [outcome_row(best, axes) for best in found.values()]
    if tuning.best is not None:
        rows = [row | {"gain": row["tokens_per_s"] / tuning.best.tokens_per_s} for row in rows]
    return pd.DataFrame(rows, index=pd.Index(found, name="upgrade"))
