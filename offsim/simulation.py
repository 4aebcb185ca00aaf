"""From a scenario to a run: checks, placement of states, simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from offsim.inputs.errors import InputError, suggestion
from offsim.platform.hardware import HardwareProfile
from offsim.platform.layout import Layout
from offsim.platform.platform import GPU, HOST, tier_kind
from offsim.programs.options import ScheduleOptions
from offsim.programs.run import Run, run_training
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import Workload
from offsim.scenario import Model, Scenario, Training
from offsim.schedulers.registry import scenario_scheduler
from offsim.states.placement import Placed, tiers_of


def run_scenario(
    scenario: Scenario, profile: HardwareProfile, all_ranks: bool = False, stretch: Mapping[str, float] | None = None
) -> Run:
    """Simulate a scenario on a profile. Raises InputError for errors in either."""
    for kind, times in (stretch or {}).items():
        if not 0 < times < math.inf:
            raise InputError(f"stretch of {kind!r}: found {times!r}, expected a number above 0")
    return run_training(profile, *checked(scenario, profile), all_ranks, stretch)


def checked(
    scenario: Scenario, profile: HardwareProfile
) -> tuple[Workload, type[TrainingSchedule], ScheduleOptions, Placed]:
    """Work out what a scenario simulates on a profile; raise InputError where they do not go together."""
    _require_network(scenario, profile)
    scheduler, options = scenario_scheduler(scenario)
    workload = workload_of(scenario.model, scenario.training, scheduler.by_layer)
    return workload, scheduler, options, placed_states(scenario, profile, workload, scheduler, options)


@lru_cache(maxsize=64)
def workload_of(model: Model, training: Training, by_layer: bool) -> Workload:
    """Studies simulate the same model over and over: its tensors and sub-groups are listed once."""
    return Workload(model, training, by_layer)


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


def placed_states(
    scenario: Scenario,
    profile: HardwareProfile,
    workload: Workload,
    scheduler: type[TrainingSchedule],
    options: ScheduleOptions,
) -> Placed:
    """Tiers of states by the scenario or the scheduler's defaults; InputError if scheduler or profile lack them."""
    asked, stage = scenario.placement, workload.training.zero_stage
    if stage not in scheduler.stages:
        stages = " or ".join(map(str, scheduler.stages))
        problem = f"training.zero_stage: found {stage}, expected {stages} with scheduler {scheduler.name}"
        raise scenario.document.error(("training", "zero_stage"), problem)  # which may not be given: the default is 3
    both = [name for name in scheduler.placement_options if name in scenario.scheduler.options]
    if asked.optimizer is not None and both:
        problem = f"found scheduler.{both[0]} as well, expected one of them: both say where optimizer state is"
        raise scenario.document.error(("placement", "optimizer"), f"placement.optimizer: {problem}")
    if asked.optimizer is None:
        optimizer = scheduler.default_tiers(options, len(workload.subgroups))
    else:
        optimizer = tiers_of([(entry.tier, entry.share) for entry in asked.optimizer], len(workload.subgroups))
    for tier in dict.fromkeys(optimizer):
        _require_tier(scenario, profile, "optimizer", tier, scheduler.optimizer_kinds, scheduler.name)
    parameters = asked.parameters or scheduler.parameter_home
    _require_tier(scenario, profile, "parameters", parameters, scheduler.parameter_kinds, scheduler.name)
    activations = asked.activations.tier or scheduler.activation_home
    _require_tier(scenario, profile, "activations", activations, scheduler.activation_kinds, scheduler.name)
    layers = workload.model.layers if workload.training.activation_checkpointing else 0
    return Placed(parameters, optimizer, activations, asked.activations.recomputed(layers))


def _require_tier(
    scenario: Scenario, profile: HardwareProfile, state: str, tier: str, kinds: Sequence[str], who: str
) -> None:
    """Raise InputError unless the profile has the tier, and it is of one of these kinds."""
    at = ("placement", state)
    known = (GPU, HOST, *profile.tiers)
    if tier not in known:
        raise scenario.document.error(at, f"profile '{profile.name}' has no tier '{tier}'{suggestion(tier, known)}")
    if not kinds:
        raise scenario.document.error(at, f"{who} has no {state} state to place, found {tier}")
    if (kind := tier_kind(profile, tier)) not in kinds:
        places = [name for name in known if tier_kind(profile, name) in kinds]
        found = f"({', '.join(places) or 'none here'}), found {tier} ({kind})"
        problem = f"{who} keeps {state} in {' or '.join(kinds)} tiers {found}"
        raise scenario.document.error(at, problem)
