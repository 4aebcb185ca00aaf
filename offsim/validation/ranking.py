"""Whether predictions choose as measurements do: the best scheduler or stride of runs that are otherwise alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from offsim.validation.predictions import Prediction
from offsim.validation.run_table import REQUIRED, MeasuredRun
from offsim.validation.score import measured_sum

_ALIKE = ("series", "nodes", *(column for column in REQUIRED if column != "scheduler"))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The choices of one series by measured and predicted forward + backward + step, in seconds (inf: does not fit)."""

    name: str
    measured_s: Mapping[str, float]
    predicted_s: Mapping[str, float]

    @property
    def best(self) -> str:
        """The choice measured fastest."""
        return min(self.measured_s, key=self.measured_s.__getitem__)

    @property
    def predicted_best(self) -> str:
        """The choice predicted fastest."""
        return min(self.predicted_s, key=self.predicted_s.__getitem__)

    @property
    def agrees(self) -> bool:
        """Whether the fastest is predicted to be the fastest."""
        return self.best == self.predicted_best

    @property
    def loss(self) -> float:
        """Time that following the prediction costs over the fastest, as a share of that."""
        return self.measured_s[self.predicted_best] / self.measured_s[self.best] - 1.0

    @property
    def pairs(self) -> tuple[int, int]:
        """Pairs of choices, and those of them that are predicted in the order in which they were measured."""
        pairs = list(combinations(self.measured_s, 2))
        in_order = [
            (self.measured_s[a] < self.measured_s[b]) == (self.predicted_s[a] < self.predicted_s[b]) for a, b in pairs
        ]
        return len(pairs), sum(in_order)


def scheduler_rankings(predictions: Iterable[Prediction]) -> list[Ranking]:
    """One ranking per series with at least two schedulers, each scheduler at its best stride."""
    return _rankings(predictions, lambda run: run.cell("scheduler"), lambda run: "", min)


def stride_rankings(predictions: Iterable[Prediction]) -> list[Ranking]:
    """One ranking per series and scheduler with at least two update strides."""

    def stride(run: MeasuredRun) -> str:
        return str(run.scenario.scheduler.options.get("update_stride", ""))

    return _rankings(predictions, stride, lambda run: run.cell("scheduler"), _mean)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _rankings(
    predictions: Iterable[Prediction],
    choice: Callable[[MeasuredRun], str],
    within: Callable[[MeasuredRun], str],
    combine: Callable[[Iterable[float]], float],
) -> list[Ranking]:
    """Rankings of `choice` among runs that are alike and have the same `within`; `combine` joins runs of a choice."""
    groups: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    names: dict[tuple[str, ...], str] = {}
    for prediction in predictions:
        measured_ms = measured_sum(prediction)
        chosen = choice(prediction.run)
        if measured_ms is None or not chosen:
            continue
        key = _key(prediction.run, within(prediction.run))
        names.setdefault(key, _name(prediction.run, within(prediction.run)))
        predicted = prediction.time_s()
        pair = (measured_ms / 1e3, math.inf if predicted is None else predicted)
        groups.setdefault(key, {}).setdefault(chosen, []).append(pair)
    rankings = []
    for key, choices in groups.items():
        measured = {name: combine(pair[0] for pair in pairs) for name, pairs in choices.items()}
        predicted_s = {name: combine(pair[1] for pair in pairs) for name, pairs in choices.items()}
        if len(choices) >= 2 and min(predicted_s.values()) < math.inf:
            rankings.append(Ranking(names[key], measured, predicted_s))
    return rankings


def _key(run: MeasuredRun, within: str) -> tuple[str, ...]:
    """What runs of a series have in common: all of the configuration but scheduler, stride and build."""
    cells = (run.cell(column) for column in _ALIKE)
    return (*(_number(cell) for cell in cells), within)


def _number(text: str) -> str:
    """Cells as "1.0" and "1" are the same configuration."""
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def _name(run: MeasuredRun, within: str) -> str:
    parts = [run.cell("hardware"), run.cell("series"), run.cell("model"), f"dp{run.cell('dp')} tp{run.cell('tp')}"]
    parts += [f"ratio {_number(run.cell('cpu_ratio'))}", f"global batch {run.cell('global_batch')}", within]
    return " ".join(filter(None, parts))
