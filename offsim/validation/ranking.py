"""Whether predictions choose as measurements do: the best scheduler or option of runs that are otherwise alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from offsim.programs.options import Option
from offsim.schedulers.registry import BUILT_IN, known_options
from offsim.validation.names import short
from offsim.validation.predictions import Prediction
from offsim.validation.run_table import REQUIRED, TIMES, MeasuredRun

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


def rankings(predictions: Sequence[Prediction]) -> dict[str, list[Ranking]]:
    """What is chosen -> one ranking per series with at least two choices.

    That is the scheduler, each at its best options, and under one scheduler each option worth trying, but for those
    that say where optimizer state is.
    """
    found = {"scheduler": _rankings(predictions, None)}
    for option in known_options().values():
        if option.word and option.tries and not _places(option):
            found[option.word] = _rankings(predictions, option)
    return found


def _places(option: Option) -> bool:
    """Whether an option says where optimizer state is."""
    return any(option.name in cls.placement_options for cls in BUILT_IN.values())


def _rankings(predictions: Iterable[Prediction], option: Option | None) -> list[Ranking]:
    """Rankings of an option's values under a scheduler, runs of a value by their mean; of schedulers by the best.

    Runs of a series have in common all of the configuration but the scheduler and options that do not place states.
    """
    groups: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    for prediction in predictions:
        run, predicted = prediction.run, prediction.time_s()
        scheduler = run.cell("scheduler")
        chosen = str(run.scenario.scheduler.options.get(option.name, "")) if option else scheduler
        if not run.has_all_phases or not chosen:
            continue
        measured = sum(run.measured[column] for column in TIMES) / 1e3
        pair = (measured, math.inf if predicted is None else predicted)
        series = (_name(run, scheduler if option else ""), *(short(run.cell(column)) for column in _ALIKE))
        groups.setdefault(series, {}).setdefault(chosen, []).append(pair)
    combine = fmean if option else min
    found = []
    for (name, *_), choices in groups.items():
        measured_s = {choice: combine(pair[0] for pair in pairs) for choice, pairs in choices.items()}
        predicted_s = {choice: combine(pair[1] for pair in pairs) for choice, pairs in choices.items()}
        if len(choices) >= 2 and min(predicted_s.values()) < math.inf:
            found.append(Ranking(name, measured_s, predicted_s))
    return found


def _name(run: MeasuredRun, within: str) -> str:
    """Name of a series; options that place states are at their defaults where the row says nothing."""
    ranks = [f"{column}{short(run.cell(column))}" for column in ("dp", "tp")]
    placing = [option for option in known_options().values() if option.word and _places(option)]
    placed = [f"{option.word} {short(run.cell(option.column) or str(option.default))}" for option in placing]
    parts = [*map(run.cell, ("hardware", "series", "model")), *ranks, *placed]
    return " ".join(filter(None, [*parts, f"global batch {short(run.cell('global_batch'))}", within]))
