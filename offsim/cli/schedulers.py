"""Schedulers as the command line names them: `name:option=value,option=value`."""

from __future__ import annotations

from collections.abc import Sequence

from offsim.inputs.errors import InputError
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.schedulers.registry import alternative, available_schedulers, scenario_scheduler, with_scheduler
from offsim.simulation import checked


def under(scenario: Scenario, text: str) -> Scenario:
    """Return the scenario under the scheduler that `name` or `name:option=value,...` says, its options checked.

    Options that the scenario gives and this scheduler knows too are kept.
    """
    where = f"--scheduler '{text}'"
    name, colon, given = text.partition(":")
    overrides = [f"scheduler.{pair.strip()}" for pair in given.split(",")] if colon else []
    try:
        changed = with_scheduler(scenario, name.strip())
    except InputError as error:
        if error.where:
            raise
        raise InputError(error.problem, where) from error.__cause__
    try:
        changed = load_scenario(changed, overrides)
        scenario_scheduler(changed)
    except InputError as error:
        if error.where in {f"override '{override}'" for override in overrides}:
            problem = error.problem.replace("training.micro_batch=2", "name:option=value")
            raise InputError(problem, where) from error.__cause__
        raise
    return changed


def chosen(scenario: Scenario, texts: Sequence[str]) -> tuple[list[Scenario], list[str]]:
    """The scenario under each scheduler of `texts`, without any under all that apply; and which do not, and why."""
    if texts:
        return [under(scenario, text) for text in texts], []
    scenario_scheduler(scenario)
    found, left_out = [], []
    for name in available_schedulers():
        try:
            changed = alternative(scenario, name)
            checked(changed, scenario_profile(changed))
        except InputError as error:
            left_out.append(f"left out {name}: {error.problem}")
        else:
            found.append(changed)
    if not found:
        checked(scenario, scenario_profile(scenario))  # what is wrong with it under each of them
    return found, left_out
