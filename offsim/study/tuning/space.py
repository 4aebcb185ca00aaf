"""The settings that tuning chooses among: each dimension's values, and the scenario of each combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offsim.inputs.errors import InputError, suggestion
from offsim.programs.transformer import Workload
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers.registry import available_schedulers, find_scheduler, with_scheduler

Settings = dict[str, Any]
"""Dimension -> value, of the dimensions that the setting's scheduler has."""

TRAINING = ("micro_batch", "subgroup_size", "activation_checkpointing")
"""Dimensions that are keys of a scenario's `training`; "scheduler" apart, the others are options of schedulers."""

OPTION_VALUES: dict[str, tuple[Any, ...]] = {
    "update_stride": tuple(range(2, 9)),
    "cpu_ratio": (0.0, 0.25, 0.5, 0.75, 1.0),
}
SUBGROUP_SIZES = (100_000_000, 200_000_000, 500_000_000, 1_000_000_000)
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)

DIMENSIONS = ("scheduler", *OPTION_VALUES, *TRAINING)
DEFAULT = ("scheduler", "update_stride", "cpu_ratio", "subgroup_size", "micro_batch")


@dataclass(frozen=True)
class Candidate:
    """One setting, and the scenario that it makes of the one to tune."""

    settings: Settings
    scenario: Scenario


def values_of(
    scenario: Scenario, over: Sequence[str], given: Mapping[str, Sequence[Any]], grow_batch: bool
) -> dict[str, tuple[Any, ...]]:
    """Values of each dimension in `over`, the scenario's own among them; `given` ones in place of the usual."""
    found: dict[str, tuple[Any, ...]] = {}
    for name in dict.fromkeys((*over, *given)):
        if name not in DIMENSIONS:
            raise InputError(f"cannot tune over '{name}'{suggestion(name, DIMENSIONS)}")
        if name in OPTION_VALUES and "scheduler" not in (*over, *given) and not _has(scenario.scheduler.name, name):
            raise InputError(f"cannot tune over '{name}': it is no option of {scenario.scheduler.name}")
        if name in given:
            if not given[name]:
                raise InputError(f"{name}: found no values, expected some")
            found[name] = tuple(dict.fromkeys(given[name]))
        else:
            found[name] = _usual(scenario, name, grow_batch)
    return found


def _has(scheduler: str, option: str) -> bool:
    return option in find_scheduler(scheduler).Options.model_fields


def _usual(scenario: Scenario, name: str, grow_batch: bool) -> tuple[Any, ...]:
    training = scenario.training
    if name == "scheduler":
        return tuple(available_schedulers())
    if name == "activation_checkpointing":
        return (True, False)
    if name == "micro_batch":
        whole = training.global_batch // training.data_parallel
        usual = MICRO_BATCHES if grow_batch else tuple(n for n in MICRO_BATCHES if whole % n == 0)
        return tuple(sorted({*usual, training.micro_batch}))
    if name == "subgroup_size":
        return _different(scenario, sorted({*SUBGROUP_SIZES, training.subgroup_size}))
    own = scenario.scheduler.options.get(name)
    return tuple(sorted({*OPTION_VALUES[name], *([] if own is None else [own])}))


def _different(scenario: Scenario, sizes: Sequence[int]) -> tuple[int, ...]:
    """Leave out sizes that make the sub-groups that another one makes, but not the scenario's own."""
    own = scenario.training.subgroup_size
    made: dict[tuple[int, ...], int] = {}
    for size in (own, *sizes):
        training = scenario.training.model_copy(update={"subgroup_size": size})
        groups = tuple(group.elements for group in Workload(scenario.model, training).subgroups)
        made.setdefault(groups, size)
    return tuple(sorted(made.values()))


def candidates(scenario: Scenario, values: Mapping[str, Sequence[Any]], grow_batch: bool) -> Iterator[Candidate]:
    """Every combination; options of schedulers only where the scheduler has them."""
    for training in _combinations({name: values[name] for name in TRAINING if name in values}):
        changed = load_scenario(scenario, _training_overrides(scenario, training, grow_batch))
        for name in values.get("scheduler", (scenario.scheduler.name,)):
            options = {o: values[o] for o in OPTION_VALUES if o in values and _has(str(name), o)}
            for chosen in _combinations(options):
                settings = ({"scheduler": name} if "scheduler" in values else {}) | chosen | training
                yield Candidate(settings, with_scheduler(changed, {"name": name, **chosen}))


def _training_overrides(scenario: Scenario, settings: Settings, grow_batch: bool) -> list[str]:
    overrides = [f"training.{name}={str(value).lower()}" for name, value in settings.items()]
    if grow_batch and "micro_batch" in settings:
        training = scenario.training
        batch = int(settings["micro_batch"]) * training.data_parallel * training.micro_steps
        overrides.append(f"training.global_batch={batch}")
    return overrides


def _combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[Settings]:
    from itertools import product

    for chosen in product(*values.values()):
        yield dict(zip(values, chosen, strict=True))
