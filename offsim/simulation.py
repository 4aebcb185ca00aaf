"""Simulate a scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.platform.node import Layout
from offsim.platform.profiles import scenario_profile
from offsim.programs.iteration import run_iteration
from offsim.programs.transformer import Workload
from offsim.results.result import Result
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers.registry import scenario_scheduler

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
    """Simulate one training iteration.

    `overrides` are `section.key=value` strings. Where all ranks of a node are in the same situation one stands for
    all of them, unless `all_ranks`. `profile` replaces the one that the scenario names. `stretch` makes activities of a
    kind, as the timeline names them, take so many times as long: {"cpu_adam": 1.3}. Raises InputError for what is
    wrong with the input; running out of memory is a result (`Result.verdict`), not an error.
    """
    for kind, times in (stretch or {}).items():
        if not 0 < times < math.inf:
            raise InputError(f"stretch of {kind!r}: found {times!r}, expected a number above 0")
    chosen = load_scenario(scenario, overrides)
    hardware = profile or scenario_profile(chosen)
    _require_network(chosen, hardware)
    scheduler, options = scenario_scheduler(chosen)
    run = run_iteration(hardware, Workload(chosen.model, chosen.training), scheduler, options, all_ranks, stretch)

    def attempt(changed: Scenario) -> float | None:
        other = simulate(changed, all_ranks=all_ranks, profile=profile, stretch=stretch)
        return other.iteration_s if other.fits else None

    def on(other: HardwareProfile) -> Result:
        return simulate(chosen, all_ranks=all_ranks, profile=other, stretch=stretch)

    return Result(chosen, run, attempt, on)


def _require_network(scenario: Scenario, profile: HardwareProfile) -> None:
    training = scenario.training
    ranks = training.data_parallel * training.tensor_parallel
    nodes = Layout.of(ranks, profile, all_ranks=False).nodes
    if nodes > 1 and profile.interconnect.nic_bytes_per_s is None:
        problem = (
            f"data_parallel x tensor_parallel = {ranks} GPUs are {nodes} nodes of {profile.gpus_per_node}, but profile "
            f"'{profile.name}' has no network: expected interconnect.nic_bytes_per_s in it, or at most "
            f"{profile.gpus_per_node} GPUs"
        )
        raise scenario.document.error(("training", "data_parallel"), problem)
