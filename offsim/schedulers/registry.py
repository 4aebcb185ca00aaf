"""Schedulers by name: the built-in ones and those that installed packages register.

A package registers a scheduler with an entry point of the group `offsim.schedulers`:

    [project.entry-points."offsim.schedulers"]
    my_scheduler = "my_package.my_module:MyScheduler"

It is imported when a scenario chooses it, so a broken package disturbs nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offsim.inputs.document import Document, Mark
from offsim.inputs.errors import InputError, suggestion
from offsim.programs.entries import Classes, find_class, names_of
from offsim.programs.options import Option, ScheduleOptions, declared
from offsim.programs.schedule import TrainingSchedule
from offsim.scenario import Scenario, SchedulerChoice, scheduler_options

GROUP = "offsim.schedulers"
BUILT_IN = Classes[TrainingSchedule](
    "offsim.schedulers",
    {
        "no_offload": "NoOffload",
        "zero1_offload": "Zero1Offload",
        "zero2_offload": "Zero2Offload",
        "zero3_offload": "Zero3Offload",
        "zero3_offload_async_grads": "Zero3OffloadAsyncGrads",
        "deep_optimizer_states": "DeepOptimizerStates",
        "zero_infinity": "ZeroInfinity",
        "mlp_offload": "MlpOffload",
        "stronghold": "Stronghold",
        "lohan": "Lohan",
        "greedysnake": "GreedySnake",
        "memascend": "MemAscend",
        "smart_infinity": "SmartInfinity",
        "zo2": "Zo2",
        "distzo2": "DistZo2",
        "fsdp_offload": "FsdpOffload",
        "slideformer": "SlideFormer",
        "megatrain": "MegaTrain",
        "l2l": "L2L",
        "roundpipe": "RoundPipe",
        "llmq": "Llmq",
        "megatron_offload": "MegatronOffload",
        "zero_offload": "ZeroOffload",
        "superoffload": "SuperOffload",
        "zenflow": "ZenFlow",
        "patrickstar": "PatrickStar",
        "autohete": "AutoHete",
    },
)


def register(scheduler: type[TrainingSchedule]) -> type[TrainingSchedule]:
    """Make a scheduler known by its name in this process; also a class decorator."""
    BUILT_IN[scheduler.name] = scheduler
    return scheduler


def available_schedulers() -> list[str]:
    """Names of the built-in schedulers, then of those that installed packages register."""
    return names_of(GROUP, BUILT_IN)


def known_options() -> dict[str, Option]:
    """The options of all schedulers of this process by name, those of few schedulers before those of many."""
    found = {option.name: option for cls in BUILT_IN.values() for option in declared(cls.Options)}
    return dict(reversed(found.items()))


def find_scheduler(name: str) -> type[TrainingSchedule]:
    """Return the scheduler of that name; InputError where there is none or its package cannot be loaded."""
    documented = "offsim.schedulers.TrainingSchedule (see docs/write_a_scheduler.md)"
    return find_class(name, GROUP, BUILT_IN, "scheduler", TrainingSchedule, documented)


def scenario_scheduler(scenario: Scenario) -> tuple[type[TrainingSchedule], ScheduleOptions]:
    """The class that the scenario chooses and its checked options; InputError points to what is wrong there."""
    try:
        cls = find_scheduler(scenario.scheduler.name)
    except InputError as error:
        raise scenario.document.error(("scheduler", "name"), error.problem) from error.__cause__
    return cls, scheduler_options(scenario, cls.Options)


def with_scheduler(scenario: Scenario, choice: str | Mapping[str, Any]) -> Scenario:
    """Return the scenario under another scheduler, a name or a mapping of `name` and options.

    Options that the scenario gives and the other scheduler knows too are kept, the rest are dropped. InputError for one
    that no scheduler knows.
    """
    given = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = given.setdefault("name", scenario.scheduler.name)
    known = find_scheduler(name).Options.model_fields
    kept = {key: value for key, value in scenario.scheduler.options.items() if key in known}
    for key in scenario.scheduler.options:
        if key not in known and not _is_option(key, scenario.scheduler.name):
            problem = f"unknown key '{key}' in scheduler{suggestion(key, known)}"
            raise scenario.document.error(("scheduler", key), problem)
    section = {**kept, **given}
    changed = scenario.model_copy(update={"scheduler": SchedulerChoice(**section)})
    before = scenario.document
    # What is given here is not in the file: a complaint about it must not point there.
    marks = before.marks | {("scheduler", key): Mark("", 0, "") for key in given}
    changed._document = Document({**before.data, "scheduler": section}, marks)
    return changed


def _is_option(key: str, likely: str) -> bool:
    """Whether a scheduler has the option, of which `likely` is looked at first and those of packages last."""
    if key in known_options():
        return True
    for name in (likely, *available_schedulers()):
        try:
            if key in find_scheduler(name).Options.model_fields:
                return True
        except InputError:  # of a name that a complaint is about elsewhere, or of a broken package
            continue
    return False


def alternative(scenario: Scenario, name: str) -> Scenario:
    """Return the scenario under another scheduler that computes the same; InputError for one that does not.

    Zeroth-order steps are no way to run a training step that does not fit.
    """
    own = scenario.scheduler.name
    computed, wanted = find_scheduler(name).program, find_scheduler(own).program
    if computed != wanted:
        raise InputError(f"it is a schedule of {computed} steps, {own} one of {wanted} steps")
    return with_scheduler(scenario, name)
