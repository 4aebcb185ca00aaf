"""From a scenario to a run: checks, placement of states, simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from offsim.activations.registry import scenario_rule
from offsim.inputs.errors import InputError, KeyPath, suggestion
from offsim.platform.hardware import HardwareProfile
from offsim.platform.layout import Layout
from offsim.platform.platform import GPU, HOST, tier_kind
from offsim.programs.options import ScheduleOptions
from offsim.programs.run import Run, check_size, most_operations, run_training
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import Workload
from offsim.scenario import Model, Scenario, Training
from offsim.schedulers.registry import scenario_scheduler
from offsim.states.placement import Placed, shares_of, tiers_of


def run_scenario(
    scenario: Scenario,
    profile: HardwareProfile,
    all_ranks: bool,
    stretch: Mapping[str, float] | None,
    max_operations: int | None = None,
    *,
    bounded: bool = True,
    record: bool = False,
) -> Run:
    """Simulate a scenario on a profile, or with more memory than that has; `record` what waits for what, for traces.

    Raises InputError for errors in either, and for one that is too large.
    """
    for kind, times in (stretch or {}).items():
        if not 0 < times < math.inf:
            raise InputError(f"stretch of {kind!r}: found {times!r}, expected a number above 0")
    training = scenario.training
    layout = Layout.of(training.data_parallel * training.tensor_parallel, profile, all_ranks)
    check_size(scenario.model.layers, training.micro_steps, layout, most_operations(max_operations))
    known = checked(scenario, profile)
    return run_training(profile, *known, all_ranks, stretch, scenario.checkpoint, bounded, max_operations, record)


def checked(
    scenario: Scenario, profile: HardwareProfile
) -> tuple[Workload, type[TrainingSchedule], ScheduleOptions, Placed]:
    """Work out what a scenario simulates on a profile; raise InputError where they do not go together.

    Options that say where optimizer state is have their defaults: a run knows it from what is placed alone, so that two
    scenarios that place it the same run the same.
    """
    _require_network(scenario, profile)
    scheduler, options = scenario_scheduler(scenario)
    workload = workload_of(scenario.model, scenario.training, scheduler.by_layer)
    if scenario.checkpoint:
        if scheduler.program != "training":
            raise scenario.document.error(("checkpoint",), f"checkpoint: found with {scheduler.name}, expected none")
        _require_tier(scenario, profile, ("checkpoint", "files"), scenario.checkpoint.files, ("storage",), "checkpoint")
    placed = placed_states(scenario, profile, workload, scheduler, options)
    fields = scheduler.Options.model_fields
    placing = {
        name: fields[name].get_default(call_default_factory=True)
        for name in scheduler.placement_options
        if name in fields
    }
    return workload, scheduler, options.model_copy(update=placing), placed


def as_given(scenario: Scenario) -> dict[str, Any]:
    """A scenario without name and hardware, with all options of its scheduler; InputError for wrong ones."""
    _, options = scenario_scheduler(scenario)
    given = scenario.model_dump(exclude={"name", "hardware", "hardware_changes"})
    given["scheduler"] = {"name": scenario.scheduler.name, **options.model_dump()}
    return {key: value for key, value in given.items() if value is not None}


def what_runs(scenario: Scenario) -> dict[str, Any]:
    """As it is given, with all placement spelled out: equal where runs are, on any profile.

    Options that say where optimizer state is are left out. Raises InputError for some of what cannot be simulated.
    """
    scheduler, options = scenario_scheduler(scenario)
    workload = workload_of(scenario.model, scenario.training, scheduler.by_layer)
    placed, activations = _asked(scenario, workload, scheduler, options), scenario.placement.activations
    values = as_given(scenario)
    if len(placed.optimizer) != len(workload.subgroups):  # zeroth-order steps have no optimizer state
        return values
    for name in scheduler.placement_options:
        values["scheduler"].pop(name, None)
    values["placement"] = {
        "parameters": placed.parameters,
        "optimizer": shares_of(placed.optimizer),
        "activations": {
            **activations.model_dump(exclude_none=True),
            "tier": placed.activations,
            "recompute": placed.recomputed,
        },
    }
    return values


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
    placed = _asked(scenario, workload, scheduler, options)
    for tier in dict.fromkeys(placed.optimizer):
        _require_tier(scenario, profile, ("placement", "optimizer"), tier, scheduler.optimizer_kinds, scheduler.name)
    home = placed.parameters
    _require_tier(scenario, profile, ("placement", "parameters"), home, scheduler.parameter_kinds, scheduler.name)
    kinds, who, rule = scheduler.activation_kinds, scheduler.name, placed.rule
    if rule is not None:
        kinds, who = rule.chosen.kinds, f"rule {scenario.placement.activations.rule}"
    _require_tier(scenario, profile, ("placement", "activations"), placed.activations, kinds, who)
    if rule is not None and placed.recomputed and not rule.chosen.recomputes:
        problem = f"placement.activations.recompute: found {placed.recomputed} layers, expected 0 with {who}"
        raise scenario.document.error(("placement", "activations", "recompute"), problem)  # the default is all
    return placed


def _asked(
    scenario: Scenario, workload: Workload, scheduler: type[TrainingSchedule], options: ScheduleOptions
) -> Placed:
    """Tiers of states on any profile that has them; InputError where scenario and scheduler do not go together."""
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
    activations = asked.activations.tier or scheduler.activation_home
    layers = workload.model.layers if workload.training.activation_checkpointing else 0
    given = asked.activations.recompute
    recomputed = scheduler.default_recomputed(options, layers) if given is None else min(given, layers)
    parameters = asked.parameters or scheduler.parameter_home
    return Placed(parameters, optimizer, activations, recomputed, scenario_rule(scenario))


def _require_tier(
    scenario: Scenario, profile: HardwareProfile, at: KeyPath, tier: str, kinds: Sequence[str], who: str
) -> None:
    """Raise InputError unless the profile has the tier, and it is of one of these kinds."""
    known = (GPU, HOST, *profile.tiers)
    if tier not in known:
        raise scenario.document.error(at, f"profile '{profile.name}' has no tier '{tier}'{suggestion(tier, known)}")
    if not kinds:
        raise scenario.document.error(at, f"{who} has no {at[-1]} state to place, found {tier}")
    if (kind := tier_kind(profile, tier)) not in kinds:
        places = [name for name in known if tier_kind(profile, name) in kinds]
        found = f"({', '.join(places) or 'none here'}), found {tier} ({kind})"
        problem = f"{who} keeps {at[-1]} in {' or '.join(kinds)} tiers {found}"
        raise scenario.document.error(at, problem)
