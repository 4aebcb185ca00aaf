"""The activities of a measured iteration and of the simulated one, phase by phase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from offsim.results.result import Result
from offsim.traces.read import read_trace
from offsim.validation.accounts import Activities, PhaseAccount
from offsim.validation.run_table import MEASURED_PHASES, MeasuredRun, RunTable
from offsim.validation.traced import MeasuredActivities, TracedIteration, last_iteration
from offsim.views.figure import Picture
from offsim.views.page import PAGE_WIDTH_IN, ROW_IN
from offsim.views.timeline import plot_comparison


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of activity in one phase; None where there is none of it."""

    kind: str
    measured: MeasuredActivities | None
    simulated: Activities | None

    @property
    def measured_s(self) -> float:
        """Sum of their times."""
        return self.measured.seconds if self.measured else 0.0

    @property
    def simulated_s(self) -> float:
        """The same, what contention adds included."""
        return self.simulated.alone_s + self.simulated.lost_s if self.simulated else 0.0

    @property
    def difference_s(self) -> float:
        """Measured less simulated."""
        return self.measured_s - self.simulated_s


def traced_iteration(table: RunTable, run: MeasuredRun) -> TracedIteration | None:
    """The last iteration of the run's trace, if its table lies in a folder that the harness has written."""
    schedule = run.cell("schedule")
    folder = table.path if table.path.is_dir() else table.path.parent
    path = folder / "traces" / f"{schedule}.json.gz"
    if not schedule or Path(schedule).name != schedule or not path.is_file():  # a name, no way to another folder
        return None
    return last_iteration(read_trace(path))


def pairs(traced: TracedIteration, account: PhaseAccount) -> list[Pair]:
    """The phase's activities by kind, those first whose times are furthest apart."""
    measured = {found.kind: found for found in traced.in_phase(account.phase)}
    simulated = {found.kind: found for found in account.activities if found.alone_s > 0}
    kinds = dict.fromkeys([*simulated, *measured])
    found = [Pair(kind, measured.get(kind), simulated.get(kind)) for kind in kinds]
    return sorted(found, key=lambda pair: -abs(pair.difference_s))


def plot_side_by_side(traced: TracedIteration, result: Result, title: str) -> Picture:
    """Draw the measured iteration above the simulated one, on one time axis."""
    phases = result.phases.assign(phase=result.phases["phase"].replace(MEASURED_PHASES))
    rows = [("measured", traced.timeline(), traced.phases), ("simulated", result.timeline, phases)]
    return plot_comparison(rows, width_in=PAGE_WIDTH_IN, row_in=ROW_IN, numbers=True, title=title)
