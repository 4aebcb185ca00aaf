"""The largest model that fits, with each scheduler: the scenario's architecture in published shapes, then by layers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from offsim.scenario import Model, Scenario
from offsim.schedulers.registry import find_scheduler
from offsim.simulation import workload_of
from offsim.study.tuning.space import Candidate, Space
from offsim.study.tuning.tune import Mapper, Outcome, Question, simulated

SHAPES = (
    *((12, 768, 12), (24, 1024, 16), (24, 1536, 16)),
    *((24, 2304, 24), (30, 3072, 32), (36, 4096, 32), (40, 6144, 48), (48, 8192, 64), (60, 10240, 80)),
    *((80, 12288, 96), (96, 16384, 128), (105, 20480, 128), (128, 25600, 160)),
)
"""(layers, hidden, heads): Brown et al. 2020, table 2.1; from 1.7e9 parameters on Narayanan et al. 2021, table 1."""


@dataclass(frozen=True)
class LargestModel:
    """The largest model that a scheduler fits, simulated."""

    scheduler: str
    parameters: int
    outcome: Outcome


@dataclass(frozen=True)
class Largest:
    """What was found; `models` has the largest first."""

    given: Scenario
    models: Sequence[LargestModel]
    none: Sequence[str]
    """Schedulers with which not even the smallest shape fits."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Schedulers that do not apply to the scenario, and why."""


def largest_models(scenario: Scenario, question: Question, mapper: Mapper = map) -> Largest:
    """Find the largest model with each scheduler, by any of the settings of `question`.

    Unless it names dimensions, these are all options with values to try, at a micro-batch of 1. More layers or a wider
    shape are taken to need more memory. Raises InputError for unknown dimensions.
    """
    values = question.values if question.over is not None else {"micro_batch": [1], **question.values}
    space = Space(scenario, question.over, values, grow_batch=False)
    if question.over is None and "subgroup_size" not in values:
        space.dimensions.remove("subgroup_size")
    by_scheduler: dict[str, list[Candidate]] = {}
    for candidate in space:
        by_scheduler.setdefault(candidate.scenario.scheduler.name, []).append(candidate)
    found = list(mapper(partial(_largest, headroom=question.headroom), list(by_scheduler.values())))
    models = [one for one in found if one is not None]
    models.sort(key=lambda one: (-one.parameters, one.outcome.iteration_s))
    none = [name for name, one in zip(by_scheduler, found, strict=True) if one is None]
    return Largest(scenario, models, none, space.skipped)


def _largest(candidates: Sequence[Candidate], headroom: float) -> LargestModel | None:
    """The largest model of any of a scheduler's settings."""
    sizes = _sizes(candidates[0].scenario)
    best: Outcome | None = None
    reached = 0  # models that fit so far, of all sizes
    for candidate in candidates:

        def outcome_of(size: int, candidate: Candidate = candidate) -> Outcome:
            scenario = candidate.scenario.model_copy(update={"model": sizes[size]})
            return simulated(replace(candidate, scenario=scenario), headroom)

        if reached < len(sizes) and outcome_of(reached).fits:
            reached += 1
            reached += bisect_left(range(reached, len(sizes)), True, key=lambda size: not outcome_of(size).fits)
            best = outcome_of(reached - 1)
    if best is None:
        return None
    name = best.scenario.scheduler.name
    return LargestModel(name, _parameters(best.scenario, best.scenario.model), best)


def _sizes(scenario: Scenario) -> list[Model]:
    """The models to choose among, by size: each shape, and between it and the next one with more and more layers."""
    tensor_parallel = scenario.training.tensor_parallel
    shapes = [(layers, _shaped(scenario.model, *shape)) for layers, *shape in SHAPES if shape[1] % tensor_parallel == 0]
    sizes: list[Model] = []
    for place, (layers, model) in enumerate(shapes):
        sizes.append(model.model_copy(update={"layers": layers}))
        if place + 1 == len(shapes):
            break
        wider = shapes[place + 1][1].model_copy(update={"layers": shapes[place + 1][0]})
        one, two = (_parameters(scenario, model.model_copy(update={"layers": count})) for count in (1, 2))
        most = 1 + (_parameters(scenario, wider) - one - 1) // (two - one)
        sizes += [model.model_copy(update={"layers": count}) for count in range(layers + 1, most + 1)]
    return sizes


def _shaped(model: Model, hidden: int, heads: int) -> Model:
    """The model with another width: FFN in proportion, as many query heads for each of keys and values or fewer."""
    group = next(g for g in range(model.heads // model.kv_heads, 0, -1) if heads % g == 0)
    ffn = 64 * round(hidden * model.ffn_hidden / model.hidden / 64)
    return model.model_copy(update={"hidden": hidden, "heads": heads, "kv_heads": heads // group, "ffn_hidden": ffn})


def _parameters(scenario: Scenario, model: Model) -> int:
    """Of the whole model, trained as in the scenario."""
    by_layer = find_scheduler(scenario.scheduler.name).by_layer
    return workload_of(model, scenario.training, by_layer).parameters * scenario.training.tensor_parallel
