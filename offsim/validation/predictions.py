"""What offsim predicts for the rows of a table of measured runs, from their configuration alone."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.results.limits import PhaseSpan, job_phases
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.results.units import GIB
from offsim.results.verdict import Verdict
from offsim.scenario import scenario_profile
from offsim.validation.names import run_names
from offsim.validation.run_table import MEASURED, TIMES, MeasuredRun, RunTable, in_columns


@dataclass(frozen=True, slots=True)
class Prediction:
    """A run and what is predicted for it, by column in the table's units (ms, GiB); nothing where it does not fit."""

    run: MeasuredRun
    values: dict[str, float]
    verdict: Verdict | None = None

    @property
    def fits(self) -> bool:
        """Whether the run is predicted to fit in memory."""
        return self.verdict is None

    def time_s(self) -> float | None:
        """Predicted forward + backward + step; None where it does not fit."""
        return sum(self.values[column] for column in TIMES) / 1e3 if self.fits else None


@dataclass(frozen=True)
class Validation:
    """A table and a prediction for each of its runs."""

    table: RunTable
    predictions: tuple[Prediction, ...]

    @cached_property
    def names(self) -> dict[int, str]:
        """Line -> a name of the run that no other run of the table has."""
        return run_names(self.table.runs)

    @property
    def profile(self) -> str:
        """Name of the profile that was chosen in place of what the table names; "" where none was."""
        chosen = (run.scenario for run in self.table.runs if run.scenario.hardware != run.cell("hardware"))
        return next((scenario_profile(scenario).name for scenario in chosen), "")

    @property
    def predicted_columns(self) -> tuple[str, ...]:
        """The columns of the table that are predicted; all that can be where it has none of them."""
        return tuple(column for column in MEASURED if column in self.table.columns) or MEASURED


def validate_runs(table: RunTable) -> Validation:
    """Predict every run of a table. Raises InputError, with the line, for a run that cannot be simulated."""
    return Validation(table, tuple(predict(run) for run in table.runs))


def predict(run: MeasuredRun, profile: HardwareProfile | None = None) -> Prediction:
    """Simulate one run, on `profile` in place of the one that it names where that is given."""
    try:
        result = simulate(run.scenario, profile=profile)
    except InputError as error:
        raise in_columns(error) from None
    if result.verdict is not None:
        return Prediction(run, {}, result.verdict)
    times = {column: 1e3 * result.durations[phase] for column, phase in TIMES.items()}
    overhead = 1e3 * result.run.profile.measurement.iteration_overhead_s
    return Prediction(run, {**times, "iteration_ms": sum(times.values()) + overhead, **_memory(result)})


def _memory(result: Result) -> dict[str, float]:
    """Allocated GPU memory at the phases' ends and the most within them, in GiB; before forward as after the update."""
    series = [(time, used / GIB) for time, _, _, used in result.run.ranks[0].gpu_memory.series]
    after: dict[str, float] = {}
    peak: dict[str, float] = {}
    for phase in job_phases(result.run):
        within = _within(series, phase)
        after[phase.name] = within[-1]
        peak[phase.name] = max(peak.get(phase.name, 0.0), *within)
    return {
        "mem_before_forward_gib": after["update"],
        "mem_after_forward_gib": after["forward"],
        "peak_after_forward_gib": peak["forward"],
        "mem_after_backward_gib": after["backward"],
        "peak_after_backward_gib": peak["backward"],
    }


def _within(series: list[tuple[float, float]], phase: PhaseSpan) -> list[float]:
    """What was used from the phase's start to its end.

    At the instant where one phase ends and the next begins, what the one gives back comes before what the other
    takes: the least used at that instant is where they meet.
    """
    first = _least_at(series, phase.start)
    last = _least_at(series, phase.end)
    return [used for _, used in series[first : last + 1]]


def _least_at(series: list[tuple[float, float]], time: float) -> int:
    """The last of the least used entries at this instant; the last entry before where there is none."""
    until = bisect_right(series, time, key=itemgetter(0))
    first = until - 1
    while first > 0 and series[first - 1][0] == series[until - 1][0] == time:
        first -= 1
    return max(range(max(first, 0), max(until, 1)), key=lambda index: (-series[index][1], index))
