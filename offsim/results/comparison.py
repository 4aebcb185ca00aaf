"""Comparison of several scenarios, or of one under several schedulers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from offsim.results.result import SPEEDS, Result
from offsim.results.simulate import Source, simulate
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers.registry import with_scheduler

if TYPE_CHECKING:
    import pandas as pd


AnyResult = TypeVar("AnyResult", bound=Result, covariant=True)


class Comparison(Generic[AnyResult]):
    """Results by label; speed-ups are relative to the first that fits."""

    def __init__(self, results: Sequence[AnyResult], labels: Sequence[str]) -> None:
        if not results:
            raise ValueError("nothing to compare: no results")
        if len(labels) != len(results) or len(set(labels)) != len(labels):
            raise ValueError(f"labels(={list(labels)}) must be {len(results)} different names")
        self.results = list(results)
        self.labels = list(labels)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[AnyResult]:
        return iter(self.results)

    def __getitem__(self, key: str | int) -> AnyResult:
        """The result with this label or at this position."""
        return self.results[self.labels.index(key) if isinstance(key, str) else key]

    @cached_property
    def speedups(self) -> list[float | None]:
        """Speed-up of each result over the first that fits; None for those that do not fit."""
        times = [result.iteration_s if result.fits else None for result in self.results]
        first = next((time for time in times if time is not None), None)
        return [None if time is None or first is None else first / time for time in times]

    def figures(self) -> list[dict[str, Any]]:
        """The headline numbers of each, with its label and speed-up."""
        return [
            {"label": label, **result.figures(), "speedup": speedup}
            for label, result, speedup in zip(self.labels, self.results, self.speedups, strict=True)
        ]

    def summary(self) -> pd.DataFrame:
        """One row per result, indexed by label; NaN for those that do not fit."""
        import pandas as pd

        table = pd.DataFrame(self.figures()).set_index("label")
        numbers = [name for name in table.columns if name.endswith("_s") or name in (*SPEEDS, "speedup")]
        return table.astype(dict.fromkeys(numbers, "float64"))

    def to_dict(self, *, series: bool = False) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "results": [
                {"label": label, "speedup": speedup, **result.to_dict(series=series)}
                for label, result, speedup in zip(self.labels, self.results, self.speedups, strict=True)
            ]
        }


def compare(
    scenarios: Source | Sequence[Source],
    schedulers: Sequence[str | Mapping[str, Any]] = (),
    overrides: Sequence[str] = (),
    *,
    labels: Sequence[str] = (),
    all_ranks: bool = False,
) -> Comparison[Result]:
    """Simulate several scenarios, each under all `schedulers` if any are given.

    A scheduler is a name, or a mapping of `name` and options. It replaces the scenario's scheduler and keeps those of
    the scenario's options that it has. `overrides` apply to every scenario.
    """
    sources = [scenarios] if isinstance(scenarios, str | Path | Mapping | Scenario) else scenarios
    chosen = [load_scenario(source, overrides) for source in sources]
    if schedulers:
        chosen = [with_scheduler(scenario, choice) for scenario in chosen for choice in schedulers]
    results = [simulate(scenario, all_ranks=all_ranks) for scenario in chosen]
    return Comparison(results, labels or default_labels(chosen))


def default_labels(scenarios: Sequence[Scenario]) -> list[str]:
    """Labels that distinguish scenarios, from the parts that differ: scenario name, scheduler, options."""
    names = [scenario.name for scenario in scenarios]
    schedulers = [scenario.scheduler.name for scenario in scenarios]
    given = [scenario.scheduler.options for scenario in scenarios]
    alike = {key for one in given for key in one if all(key in other and other[key] == one[key] for other in given)}
    options = [", ".join(f"{key} {one[key]}" for key in sorted(one.keys() - alike)) for one in given]
    labels = ["" for _ in scenarios]
    for part in (names, schedulers, options):
        if len(set(labels)) < len(labels) and len(set(part)) > 1:
            labels = [", ".join(filter(None, pair)) for pair in zip(labels, part, strict=True)]
    if not all(labels):
        labels = [label or scheduler for label, scheduler in zip(labels, schedulers, strict=True)]
    counts: dict[str, int] = {}
    for position, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        if counts[label] > 1:
            labels[position] = f"{label} ({counts[label]})"
    return labels
