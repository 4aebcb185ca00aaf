"""From a scenario to its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offsim.platform.hardware import HardwareProfile
from offsim.programs.run import Run
from offsim.results.machines import Machines
from offsim.results.result import Result
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.simulation import run_scenario

Source = str | Path | Mapping[str, Any] | Scenario
"""A scenario, its file, the name of a shipped scenario, or a mapping of the same shape."""


def simulate(
    scenario: Source,
    overrides: Sequence[str] = (),
    *,
    all_ranks: bool = False,
    profile: HardwareProfile | None = None,
    stretch: Mapping[str, float] | None = None,
    max_operations: int | None = None,
) -> Result:
    """Simulate a training iteration in the steady state.

    `overrides` are `section.key=value` strings. If the ranks of a node are alike, one stands for all, unless
    `all_ranks`. `profile` replaces the scenario's. `stretch` multiplies the time of all activities of a kind, named as
    in the timeline: {"cpu_adam": 1.3}. `max_operations` bounds the size of the simulation. Raises InputError for wrong
    input and for a schedule's mistake; running out of memory is a result (`Result.verdict`), not an error.
    """
    chosen = load_scenario(scenario, overrides)
    on_profile = profile or scenario_profile(chosen)
    how = all_ranks, stretch, max_operations
    return result_of(chosen, run_scenario(chosen, on_profile, *how), profile, *how)


def result_of(
    chosen: Scenario,
    run: Run,
    profile: HardwareProfile | None = None,
    all_ranks: bool = False,
    stretch: Mapping[str, float] | None = None,
    max_operations: int | None = None,
) -> Result:
    """The result of a run of a scenario; the others are the arguments of `simulate` that it was made with."""
    how = all_ranks, stretch, max_operations
    machines = Machines(chosen, *how)

    def attempt(changed: Scenario) -> float | None:
        same = profile if changed.hardware == chosen.hardware else None
        other = simulate(changed, all_ranks=all_ranks, profile=same, stretch=stretch, max_operations=max_operations)
        return other.iteration_s if other.fits else None

    def unbounded() -> Run:
        return run_scenario(chosen, run.profile, *how, bounded=False)

    def on(other: HardwareProfile) -> Result:
        return result_of(chosen, machines.on(other), other, *how)

    return Result(chosen, run, attempt, unbounded, on)
