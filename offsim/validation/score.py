"""How far predictions are from measured values: per phase and hardware, and the worst runs by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from offsim.validation.predictions import Validation
from offsim.validation.run_table import COLUMN_OF, TIMES

Group = tuple[str, ...]
"""What the runs of a group have in common: names."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One value of the run on a line of the table, measured and predicted, in `unit`."""

    line: int
    name: str
    hardware: str
    phase: str
    unit: str
    measured: float
    predicted: float
    scheduler: str = ""

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of several runs. `bias` is the median of signed errors; the others are of their sizes."""

    n: int
    median: float
    p90: float
    worst: float
    bias: float
    worst_run: str


SCORED: dict[str, tuple[str, tuple[str, ...]]] = {
    **{phase: ("ms", (column,)) for phase, column in COLUMN_OF.items()},
    "sum": ("ms", tuple(TIMES)),
    "iteration": ("ms", ("iteration_ms",)),
    "peak after backward": ("GiB", ("peak_after_backward_gib",)),
}
"""What is scored -> its unit, and the columns that it is the sum of."""


def comparisons(validation: Validation) -> list[Comparison]:
    """All values that were both measured and predicted, in order of runs and phases."""
    found = []
    for prediction in validation.predictions:
        run, predicted = prediction.run, prediction.values
        name, hardware, scheduler = validation.names[run.line], run.cell("hardware"), run.cell("scheduler")
        for phase, (unit, columns) in SCORED.items():
            if all(column in run.measured and column in predicted for column in columns):
                measured, ours = (sum(values[column] for column in columns) for values in (run.measured, predicted))
                found.append(Comparison(run.line, name, hardware, phase, unit, measured, ours, scheduler))
    return found


def scores(compared: Iterable[Comparison]) -> dict[str, dict[str, Score]]:
    """Hardware -> phase -> score, in order of names and of `SCORED`."""
    return {hardware: phases for (hardware,), phases in scores_by(compared, "hardware").items()}


def scores_by(compared: Iterable[Comparison], *shared: str) -> dict[Group, dict[str, Score]]:
    """Group of runs that share these fields -> phase -> score, in order of names and of `SCORED`."""
    groups: dict[Group, dict[str, list[Comparison]]] = {}
    for comparison in compared:
        group = tuple(getattr(comparison, field) for field in shared)
        groups.setdefault(group, {}).setdefault(comparison.phase, []).append(comparison)
    return {
        name: {phase: score(groups[name][phase]) for phase in SCORED if phase in groups[name]}
        for name in sorted(groups)
    }


def score(compared: Sequence[Comparison]) -> Score:
    """Summarize errors of at least one value."""
    sizes = [abs(comparison.error) for comparison in compared]
    worst = max(compared, key=lambda comparison: abs(comparison.error))
    return Score(
        n=len(sizes),
        median=median(sizes),
        p90=float(np.quantile(sizes, 0.9)),
        worst=max(sizes),
        bias=median(comparison.error for comparison in compared),
        worst_run=worst.name,
    )


def worst_runs(compared: Iterable[Comparison], count: int) -> list[Comparison]:
    """The runs with the largest error of any of forward, backward and step, each with that phase."""
    worst: dict[str, Comparison] = {}
    for comparison in compared:
        if comparison.phase not in COLUMN_OF:
            continue
        known = worst.get(comparison.name)
        if known is None or abs(comparison.error) > abs(known.error):
            worst[comparison.name] = comparison
    return sorted(worst.values(), key=lambda comparison: (-abs(comparison.error), comparison.name))[:count]
