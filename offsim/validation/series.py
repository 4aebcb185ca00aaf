"""Measured iterations over time: what PCIe carried and how much GPU memory was taken, phase by phase.

The counters include the protocol's overhead: what they read is the payload times a constant of the testbed
(`measurement.pcie_counter_overhead` of its profile). The memory reading includes the context and what the
framework's allocator keeps for later, so its level is above what tensors hold; its course can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offsim.inputs.errors import InputError
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.results.units import GIB
from offsim.schedulers.registry import known_options
from offsim.validation.names import short
from offsim.validation.run_table import SIMULATED_PHASES, MeasuredRun, read_rows

Array = NDArray[np.float64]

SHIPPED_SERIES = Path(__file__).with_name("measured_series.csv.gz")
HARDWARE = "jlse-4xh100"
"""The testbed of the shipped series."""

NEGLIGIBLE_BYTES = 1e9
WINDOW_S = 0.042
"""Between two samples."""
DIRECTIONS = {"D2H": "d2h_gib_s", "H2D": "h2d_gib_s"}


@dataclass(frozen=True, eq=False)
class Iteration:
    """Samples of one iteration, each at the end of what it stands for: counted bytes per second, bytes taken."""

    number: int
    time_s: Array
    phases: NDArray[np.str_]
    rates: Mapping[str, Array]
    memory: Array

    @cached_property
    def lengths_s(self) -> Array:
        """The time that each sample stands for."""
        return np.diff(self.time_s, prepend=self.time_s[0] - WINDOW_S)

    def counted(self, direction: str, phase: str | None = None) -> float:
        """Bytes counted in a phase, or in the whole iteration."""
        amounts = self.rates[direction] * self.lengths_s
        return float(amounts.sum() if phase is None else amounts[self.phases == phase].sum())

    def span(self, phase: str) -> tuple[float, float]:
        """Begin and end of a phase as its samples show them, to half a window."""
        times, lengths = self.time_s[self.phases == phase], self.lengths_s[self.phases == phase]
        return float(times[0] - lengths[0]), float(times[-1])


@dataclass(frozen=True, eq=False)
class MeasuredSeries:
    """Iterations of one run, which has these cells in the table of runs."""

    cells: Mapping[str, str]
    iterations: tuple[Iteration, ...]

    @property
    def name(self) -> str:
        """The cells that are not empty, those of options behind their word."""
        words = {option.column: option.word for option in known_options().values()}
        return " ".join(f"{words.get(column, '')} {short(cell)}".strip() for column, cell in self.cells.items() if cell)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one direction in one phase ("iteration": all), predicted and as counted in each iteration."""

    phase: str
    direction: str
    predicted: float
    counted: tuple[float, ...]

    @property
    def mean_counted(self) -> float:
        """Mean of the iterations, in bytes."""
        return sum(self.counted) / len(self.counted)

    def error(self, overhead: float) -> float | None:
        """Predicted payload over counted payload, less 1; None where next to nothing is predicted."""
        return None if self.predicted < NEGLIGIBLE_BYTES else self.predicted * overhead / self.mean_counted - 1.0


def read_series(path: Path = SHIPPED_SERIES) -> list[MeasuredSeries]:
    """Read series, in the file's order; the columns before `iteration` tell runs apart."""
    runs: dict[tuple[tuple[str, str], ...], dict[int, list[dict[str, str]]]] = {}
    for row in read_rows(path):
        cells = tuple(takewhile(lambda cell: cell[0] != "iteration", row.items()))
        runs.setdefault(cells, {}).setdefault(int(row["iteration"]), []).append(row)
    return [
        MeasuredSeries(dict(cells), tuple(_iteration(n, rows) for n, rows in by_number.items()))
        for cells, by_number in runs.items()
    ]


def _iteration(number: int, rows: Sequence[Mapping[str, str]]) -> Iteration:
    def column(name: str, unit: float) -> Array:
        return np.array([float(row[name]) * unit for row in rows])

    return Iteration(
        number,
        column("t_s", 1.0),
        np.array([row["phase"] for row in rows]),
        {direction: column(name, GIB) for direction, name in DIRECTIONS.items()},
        column("gpu_memory_used_gib", GIB),
    )


def run_of(series: MeasuredSeries, runs: Iterable[MeasuredRun]) -> MeasuredRun:
    """Find the row of the table that a series was measured in; InputError where there is none."""
    for run in runs:
        same = all(short(run.cell(column)) == short(cell) for column, cell in series.cells.items())
        if same and run.scenario.hardware == HARDWARE:
            return run
    raise InputError(f"no row of the table of runs is the series {series.name} on {HARDWARE}")


@dataclass(frozen=True, eq=False)
class SeriesComparison:
    """A series beside the simulation of its run."""

    series: MeasuredSeries
    result: Result

    @property
    def overhead(self) -> float:
        """Counted bytes over payload, of the testbed's profile."""
        return self.result.run.profile.measurement.pcie_counter_overhead

    @cached_property
    def traffic(self) -> list[Traffic]:
        """Per direction and phase, and over the iteration."""
        found = []
        for direction in DIRECTIONS:
            predicted = _predicted_traffic(self.result, direction)
            for phase, amount in {**predicted, "iteration": sum(predicted.values())}.items():
                chosen = None if phase == "iteration" else phase
                counted = tuple(iteration.counted(direction, chosen) for iteration in self.series.iterations)
                found.append(Traffic(phase, direction, amount, counted))
        return found

    @cached_property
    def memory_correlation(self) -> float | None:
        """Pearson's coefficient of measured and predicted GPU memory, mean of iterations; None where one is flat."""
        return _correlation([self._memory_of(iteration, SIMULATED_PHASES) for iteration in self.series.iterations])

    @cached_property
    def memory_levels(self) -> dict[str, float]:
        """Phase -> mean of measured less mean of predicted GPU memory, mean of the iterations, in bytes."""
        pairs = {
            phase: [self._memory_of(one, (phase,)) for one in self.series.iterations] for phase in SIMULATED_PHASES
        }
        return {
            phase: float(np.mean([measured.mean() - predicted.mean() for measured, predicted in found]))
            for phase, found in pairs.items()
        }

    def _memory_of(self, iteration: Iteration, phases: Iterable[str]) -> tuple[Array, Array]:
        """Measured and predicted memory at the samples of phases; the prediction is stretched to their lengths."""
        measured, predicted = [], []
        for name in phases:
            start, end = iteration.span(name)
            inside = iteration.phases == name
            measured.append(iteration.memory[inside])
            predicted.append(
                reserved(self.result, SIMULATED_PHASES[name], (iteration.time_s[inside] - start) / (end - start))
            )
        return np.concatenate(measured), np.concatenate(predicted)


def compare_series(all_series: Iterable[MeasuredSeries], runs: Iterable[MeasuredRun]) -> list[SeriesComparison]:
    """Simulate the run of each series."""
    listed = list(runs)
    return [SeriesComparison(series, simulate(run_of(series, listed).scenario)) for series in all_series]


def reserved(result: Result, phase: str, places: Array) -> Array:
    """Predicted bytes taken on GPU 0 at places (0 to 1) of a phase.

    The framework's allocator keeps what tensors give back, in these runs about until the phase ends: the most since
    the phase's start counts.
    """
    memory = result.memory[result.memory["tier"] == "GPU 0"]
    times, used = memory["time_s"].to_numpy(dtype=float), memory["used_bytes"].to_numpy(dtype=float)
    rows = result.phases[result.phases["phase"] == phase]
    start, end = float(rows["start_s"].min()), float(rows["end_s"].max())
    first = int(np.searchsorted(times, start, side="right")) - 1
    highest = np.maximum.accumulate(used[first:])
    instants = start + np.minimum(places, 1 - 1e-9) * (end - start)  # what the next phase takes comes at the very end
    at = np.searchsorted(times[first:], instants, side="right") - 1
    return np.asarray(highest[np.maximum(at, 0)], dtype=np.float64)


def window_means(times: Array, rates: Array, edges: Array) -> Array:
    """Means, between successive edges, of what holds each rate from its time on."""
    sums = np.concatenate([[0.0], np.cumsum(np.diff(times) * rates[:-1])])
    return np.asarray(np.diff(np.interp(edges, times, sums)) / np.diff(edges), dtype=np.float64)


def link_rates(result: Result, direction: str) -> tuple[Array, Array]:
    """Times and predicted bytes per second from then on, of one direction of GPU 0's link."""
    rows = result.bandwidth[result.bandwidth["resource"] == direction]
    return rows["time_s"].to_numpy(dtype=float), rows["bytes_per_s"].to_numpy(dtype=float)


def _predicted_traffic(result: Result, direction: str) -> dict[str, float]:
    """Payload bytes per phase."""
    times, rates = link_rates(result, direction)
    spans = result.phases
    return {
        name: sum(
            float(window_means(times, rates, np.array([start, end]))[0]) * (end - start)
            for start, end in zip(rows["start_s"], rows["end_s"], strict=True)
        )
        for name, phase in SIMULATED_PHASES.items()
        for rows in [spans[spans["phase"] == phase]]
    }


def _correlation(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    """Mean of Pearson's coefficients; where one of a pair does not change there is none."""
    found = [float(np.corrcoef(*pair)[0, 1]) for pair in pairs if all(np.ptp(values) > 0 for values in pair)]
    return sum(found) / len(found) if found else None
