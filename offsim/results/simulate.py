"""Simulate a scenario, for its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offsim.platform.hardware import HardwareProfile
from offsim.results.result import Result
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.simulation import run_scenario

Source = str | Path | Mapping[str, Any] | Scenario
"""A scenario, or where to read one: a file, the name of one that comes with offsim, a mapping of the same shape."""


def simulate(
    scenario: Source,
    overrides: Sequence[str] = (),
    *,
    all_ranks: bool = False,
    profile: HardwareProfile | None = None,
    stretch: Mapping[str, float] | None = None,
) -> Result:
    """Simulate a training iteration in the steady state.

    `overrides` are `section.key=value` strings. Where all ranks of a node are in the same situation one stands for
    all of them, unless `all_ranks`. `profile` replaces the one that the scenario names. `stretch` makes activities of a
    kind, as the timeline names them, take so many times as long: {"cpu_adam": 1.3}. Raises InputError for what is
    wrong with the input; running out of memory is a result (`Result.verdict`), not an error.
    """
    chosen = load_scenario(scenario, overrides)
    run = run_scenario(chosen, profile or scenario_profile(chosen), all_ranks, stretch)

    def attempt(changed: Scenario) -> float | None:
        other = simulate(changed, all_ranks=all_ranks, profile=profile, stretch=stretch)
        return other.iteration_s if other.fits else None

    def on(other: HardwareProfile) -> Result:
        return simulate(chosen, all_ranks=all_ranks, profile=other, stretch=stretch)

    return Result(chosen, run, attempt, on)
