"""Changes that make a scenario fit in memory, found by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from offsim.inputs.errors import InputError
from offsim.platform.profiles import available_profiles, load_profile
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


@dataclass(frozen=True)
class Remedies:
    """What a search for changes found."""

    changes: tuple[Remedy, ...]
    in_vain: tuple[str, ...]
    """Changes tried with which it does not fit, of each kind in one text."""
    machine: Remedy | None
    """The smallest shipped machine on which it fits unchanged."""


def find_remedies(scenario: Scenario, attempt: Attempt) -> Remedies:
    """The smallest change of each kind that fits, sorted by GPUs, then by time; and the smallest machine.

    Where no single change fits, those of several things at once that need all of them.
    """
    found = []
    in_vain: dict[str, list[str]] = {}
    for ladder in _ladders(scenario):
        for change in ladder:
            try:
                remedy = _try(scenario, change, attempt)
            except InputError:
                continue  # a combination that cannot be: heads that do not split, no network
            if remedy is not None:
                found.append(remedy)
                break
            key, value = next(iter(change.items()))
            in_vain.setdefault(key, []).append(str(value))
    tried = [f"{key}={', '.join(values)}" for key, values in in_vain.items()]
    if not found:
        found = [*_together(scenario, attempt)]
    changes = sorted(found, key=lambda remedy: (remedy.gpus, remedy.iteration_s, remedy.change))
    return Remedies(tuple(changes), tuple(tried), _machine(scenario, attempt))


def _together(scenario: Scenario, attempt: Attempt) -> list[Remedy]:
    """Everything that saves memory at once, under each scheduler or on more ranks, less what is not needed.

    Of changes of different length only the shortest.
    """
    training = scenario.training
    savers: Change = {"training.micro_batch": 1, "training.activation_checkpointing": "true"}
    savers |= {"model.flash_attention": "true", "training.loss_chunks": max(8, training.loss_chunks)}
    schedulers: list[Change] = [{"scheduler.name": name} for name in BUILT_IN]
    found = []
    for way in [*schedulers, *(_on_more_ranks(training, factor) for factor in FACTORS)]:
        change = {**savers, **way}
        remedy = _fits(scenario, change, attempt)
        for key in list(change) if remedy else ():
            fewer = {name: value for name, value in change.items() if name != key}
            if without := _fits(scenario, fewer, attempt):
                change, remedy = fewer, without
        if remedy:
            found.append((len(change), remedy))
    least = min((length for length, _ in found), default=0)
    return list(dict.fromkeys(remedy for length, remedy in found if length == least))


def _machine(scenario: Scenario, attempt: Attempt) -> Remedy | None:
    """The machine with the least GPU memory, then host memory, of those on which it fits."""
    profiles = [load_profile(path) for path in available_profiles().values()]
    for profile in sorted(profiles, key=lambda one: (one.gpu.memory_bytes, one.host.memory_bytes, one.name)):
        if profile.name != scenario.hardware and (remedy := _fits(scenario, {"hardware": profile.name}, attempt)):
            return remedy
    return None


def _fits(scenario: Scenario, change: Change, attempt: Attempt) -> Remedy | None:
    with suppress(InputError):
        return _try(scenario, change, attempt)
    return None


def _try(scenario: Scenario, change: Change, attempt: Attempt) -> Remedy | None:
    name = change.get("scheduler.name")
    overrides = [f"{key}={value}" for key, value in change.items() if key != "scheduler.name"]
    changed = load_scenario(alternative(scenario, str(name)) if name else scenario, overrides)
    seconds = attempt(changed)
    if seconds is None:
        return None
    training = changed.training
    said = ", ".join(f"{key}={value}" for key, value in change.items())
    return Remedy(said, seconds, training.data_parallel * training.tensor_parallel)


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
    for name in _schedulers(scenario):
        if name != scenario.scheduler.name:
            yield [{"scheduler.name": name}]
    yield [_on_more_ranks(training, f) for f in FACTORS]
    yield [{"training.tensor_parallel": training.tensor_parallel * f} for f in FACTORS[:3]]


def _schedulers(scenario: Scenario) -> list[str]:
    """Those that apply, and are neither stale nor approximate where the scenario's own is not."""
    own, options = scenario_scheduler(scenario)
    found = []
    for name in BUILT_IN:
        with suppress(InputError):
            other, others = scenario_scheduler(alternative(scenario, name))
            if own.deviates(options) or not other.deviates(others):
                found.append(name)
    return found


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
