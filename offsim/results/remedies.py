"""Single changes that make a scenario fit in memory, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from offsim.inputs.errors import InputError
from offsim.programs.options import options_to_try
from offsim.scenario import Scenario, Training, load_scenario
from offsim.schedulers.registry import BUILT_IN, alternative, scenario_scheduler

Change = dict[str, object]
"""Dotted key -> its new value."""

Attempt = Callable[[Scenario], float | None]
"""Simulates a scenario: iteration time in seconds, None if it does not fit either."""

FACTORS = (2, 4, 8, 16)


@dataclass(frozen=True)
class Remedy:
    """A change that makes the scenario fit, and its effect."""

    change: str
    """In the form of overrides, separated by commas."""
    iteration_s: float
    gpus: int


def find_remedies(scenario: Scenario, attempt: Attempt) -> tuple[Remedy, ...]:
    """The smallest change of each kind that fits, sorted by GPUs, then by time."""
    found = []
    for ladder in _ladders(scenario):
        for change in ladder:
            remedy = _try(scenario, change, attempt)
            if remedy is not None:
                found.append(remedy)
                break
    return tuple(sorted(found, key=lambda remedy: (remedy.gpus, remedy.iteration_s, remedy.change)))


def _try(scenario: Scenario, change: Change, attempt: Attempt) -> Remedy | None:
    name = change.get("scheduler.name")
    overrides = [f"{key}={value}" for key, value in change.items()]
    try:
        changed = alternative(scenario, str(name)) if name else load_scenario(scenario, overrides)
        seconds = attempt(changed)
    except InputError:
        return None  # a combination that cannot be: heads that do not split, no network
    if seconds is None:
        return None
    training = changed.training
    return Remedy(", ".join(overrides), seconds, training.data_parallel * training.tensor_parallel)


def _ladders(scenario: Scenario) -> Iterator[Iterable[Change]]:
    """For each kind of change its steps, smallest first."""
    training = scenario.training
    _, options = scenario_scheduler(scenario)
    batch = training.micro_batch
    yield [{"training.micro_batch": batch // f} for f in FACTORS if batch % f == 0]
    if not training.activation_checkpointing:
        yield [{"training.activation_checkpointing": "true"}]
    if not scenario.model.flash_attention:
        yield [{"model.flash_attention": "true"}]
    yield [{"training.subgroup_size": training.subgroup_size // f} for f in FACTORS if training.subgroup_size >= f]
    for name, values in options_to_try(type(options)).items():
        own, ordered = _size(getattr(options, name)), sorted(values, key=_size)
        yield [{f"scheduler.{name}": value} for value in ordered if _size(value) > own]
        yield [{f"scheduler.{name}": value} for value in reversed(ordered) if _size(value) < own]
    for name in BUILT_IN:
        if name != scenario.scheduler.name:
            yield [{"scheduler.name": name}]
    yield [_on_more_ranks(training, f) for f in FACTORS]
    yield [{"training.tensor_parallel": training.tensor_parallel * f} for f in FACTORS[:3]]


def _size(value: Any) -> float:
    """Of an option, to order its values by; words such as "all" come last."""
    return math.inf if isinstance(value, str) else float(value)


def _on_more_ranks(training: Training, factor: int) -> Change:
    """The same global batch in fewer micro-steps, or in smaller micro-batches if there are no steps to save."""
    share = training.global_batch // (training.data_parallel * factor)
    change: Change = {"training.data_parallel": training.data_parallel * factor}
    if share < training.micro_batch:
        change["training.micro_batch"] = share
    return change
