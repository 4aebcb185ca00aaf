"""The settings that tuning chooses among: each dimension's values, and the scenario of each combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from offsim.inputs.errors import InputError, suggestion
from offsim.programs.options import options_to_try
from offsim.programs.transformer import Workload
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.schedulers.registry import (
    BUILT_IN,
    alternative,
    available_schedulers,
    find_scheduler,
    scenario_scheduler,
    with_scheduler,
)
from offsim.simulation import checked

Settings = dict[str, Any]
"""Dimension -> value, of the dimensions that the setting's scheduler has."""

TRAINING = ("subgroup_size", "micro_batch", "activation_checkpointing")
"""Dimensions that are keys of a scenario's `training`; "scheduler" apart, the others are options of schedulers."""

SUBGROUP_SIZES = (100_000_000, 200_000_000, 500_000_000, 1_000_000_000)
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Candidate:
    """One setting, and the scenario that it makes of the one to tune."""

    settings: Settings
    scenario: Scenario
    plainness: tuple[bool, int] = (False, 0)
    """The less, the plainer: whether DeepSpeed as released lacks the schedule, and how many settings are changed.

    Changed is what is not as the scenario has it or, of options, not as by default.
    """


class Space:
    """What to choose among: dimensions `over`, or all by default, with `values` to try in place of the usual.

    Where `grow_batch`, the global batch grows with the micro-batch. Raises InputError for unknown dimensions.
    """

    def __init__(
        self, scenario: Scenario, over: Sequence[str] | None, values: Mapping[str, Sequence[Any]], grow_batch: bool
    ) -> None:
        self.scenario = scenario
        self.grow_batch = grow_batch
        self.given = {name: _distinct(listed) for name, listed in values.items()}
        asked = ("scheduler", *values) if over is None else (*over, *values)
        self.exact = "scheduler" not in values and not _deviation(scenario)
        """Whether settings that train something else are left out: the scenario does not, and no scheduler is named."""
        self.skipped: dict[str, str] = {}
        """Schedulers that are left out, and why."""
        if "scheduler" in self.given:
            schedulers = [str(name) for name in self.given["scheduler"]]
        elif "scheduler" in asked:
            schedulers, self.skipped = _applicable(scenario, self.exact)
        else:
            schedulers = [scenario.scheduler.name]
        self.options = {name: find_scheduler(name).Options for name in schedulers}
        declared = dict.fromkeys(option for model in self.options.values() for option in options_to_try(model))
        if over is None:
            over = ("scheduler", *declared, "subgroup_size", "micro_batch")
        self.dimensions = list(dict.fromkeys((*over, *values)))
        # Among schedulers, an option is one that some scheduler has.
        models = {*self.options.values(), *((cls.Options for cls in BUILT_IN.values()) if "scheduler" in asked else ())}
        for name in self.dimensions:
            tried = {
                option
                for model in models
                for option in (model.model_fields if name in values else options_to_try(model))
            }
            known = {"scheduler", *TRAINING, *tried}
            if name not in known:
                under = "" if "scheduler" in asked else f" under {scenario.scheduler.name}"
                raise InputError(f"cannot tune over '{name}'{under}{suggestion(name, known)}")
            if not self.given.get(name, True):
                raise InputError(f"{name}: found no values, expected some")

    def __iter__(self) -> Iterator[Candidate]:
        """Every combination; options only where the scheduler has them, sizes of sub-groups only where it asks."""
        own = self.scenario.scheduler.name
        by_layer = {name for name in self.options if find_scheduler(name).by_layer}
        seen: set[tuple[Any, ...]] = set()
        for training in _combinations({name: self._training(name) for name in TRAINING if name in self.dimensions}):
            changed = load_scenario(self.scenario, self._overrides(training))
            changes = sum(value != getattr(self.scenario.training, name) for name, value in training.items())
            for name, model in self.options.items():
                cls = find_scheduler(name)
                special = cls.special_build or cls.deepspeed is None
                told = {key: value for key, value in training.items() if key != "subgroup_size" or name not in by_layer}
                if (known := (name, *told.values())) in seen:
                    continue
                seen.add(known)
                for options in _combinations(self._options(model)):
                    settings = ({"scheduler": name} if "scheduler" in self.dimensions else {}) | options | told
                    unusual = sum(value != model.model_fields[key].default for key, value in options.items())
                    scenario = with_scheduler(changed, {"name": name, **options})
                    if self.exact and _deviation(scenario):
                        continue
                    yield Candidate(settings, scenario, (special, changes + unusual + (name != own)))

    def _options(self, model: type[Any]) -> dict[str, tuple[Any, ...]]:
        """The values to try of a scheduler's options, among them the default and the scenario's own."""
        own, fields = self.scenario.scheduler.options, model.model_fields
        usual = {
            name: (*tried, fields[name].default, own.get(name, tried[0]))
            for name, tried in options_to_try(model).items()
        }
        tried = {**usual, **{name: listed for name, listed in self.given.items() if name in fields}}
        return {name: _distinct(tried[name]) for name in self.dimensions if name in tried}

    def _training(self, name: str) -> tuple[Any, ...]:
        training = self.scenario.training
        if name in self.given:
            return self.given[name]
        if name == "activation_checkpointing":
            return (True, False)
        if name == "subgroup_size":
            return self._different(sorted({*SUBGROUP_SIZES, training.subgroup_size}))
        whole = training.global_batch // training.data_parallel
        usual = MICRO_BATCHES if self.grow_batch else tuple(n for n in MICRO_BATCHES if whole % n == 0)
        return tuple(sorted({*usual, training.micro_batch}))

    def _different(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Leave out sizes that make the sub-groups that another one makes, but not the scenario's own."""
        made: dict[tuple[int, ...], int] = {}
        for size in (self.scenario.training.subgroup_size, *sizes):
            training = self.scenario.training.model_copy(update={"subgroup_size": size})
            groups = tuple(group.elements for group in Workload(self.scenario.model, training).subgroups)
            made.setdefault(groups, size)
        return tuple(sorted(made.values()))

    def _overrides(self, settings: Settings) -> list[str]:
        overrides = [f"training.{name}={str(value).lower()}" for name, value in settings.items()]
        size = settings.get("micro_batch")
        if self.grow_batch and isinstance(size, int | float) and size >= 1:  # else it is wrong, and checked as it is
            training = self.scenario.training
            batch = int(size) * training.data_parallel * training.micro_steps
            overrides.append(f"training.global_batch={batch}")
        return overrides


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value for number, value in enumerate(values) if value not in values[:number])


def _combinations(values: Mapping[str, Sequence[Any]]) -> Iterator[Settings]:
    return (dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


def _deviation(scenario: Scenario) -> str:
    """In which way its scheduler trains something else than with every update awaited, if it does."""
    try:
        cls, options = scenario_scheduler(scenario)
    except InputError:
        return ""  # simulating it says what is wrong
    return cls.exactness(options) if cls.deviates(options) else ""


def _applicable(scenario: Scenario, exact: bool) -> tuple[list[str], dict[str, str]]:
    """Schedulers that can run the scenario, by its ZeRO stage, the profile's tiers and so on; the others, and why not.

    With `exact` none that trains something else.

    The scenario's own is always among the first: simulating it says what is wrong.
    """
    found, skipped = [], {}
    for name in available_schedulers():
        try:
            changed = alternative(scenario, name)
            checked(changed, scenario_profile(changed))
        except InputError as error:
            if name != scenario.scheduler.name:
                skipped[name] = error.problem
                continue
        else:
            if exact and (how := _deviation(changed)):
                skipped[name] = f"{how}; --try scheduler={name} takes it all the same"
                continue
        found.append(name)
    return found, skipped
