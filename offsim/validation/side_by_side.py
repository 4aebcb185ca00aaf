"""The activities of a measured iteration and of the simulated one, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from offsim.results.result import Result
from offsim.traces.read import read_trace
from offsim.validation.accounts import Activities, PhaseAccount
from offsim.validation.run_table import MEASURED_PHASES, MeasuredRun, RunTable
from offsim.validation.traced import MeasuredActivities, TracedIteration, last_iteration
from offsim.views.figure import PHASE_COLUMNS, TEXT_PT, Panel, Picture, axes_size_in, panels_over_time
from offsim.views.page import PAGE_WIDTH_IN, ROW_IN
from offsim.views.timeline import draw_activities, left_margin, of_rank, plot_comparison, timeline_panel


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
    return sorted(found, key=lambda pair: -abs(pair.measured_s - pair.simulated_s))


def plot_side_by_side(traced: TracedIteration, result: Result, title: str) -> Picture:
    """Draw the measured iteration above the simulated one, on one time axis."""
    phases = result.phases.assign(phase=result.phases["phase"].replace(MEASURED_PHASES))
    rows = [("measured", traced.timeline(), traced.phases), ("simulated", result.timeline, phases)]
    return plot_comparison(rows, width_in=PAGE_WIDTH_IN, row_in=ROW_IN, numbers=True, title=title)


_NAMES = ("measured", "predicted")


def plot_accounts(result: Result, accounts: Sequence[PhaseAccount], title: str) -> Picture:
    """Draw brackets of the measured phases, one after another, above the timeline of the rank simulated first.

    A phase without a measured time leaves room as long as the predicted one.
    """
    measured, end_measured = _measured_phases(accounts)
    if measured.empty:
        raise ValueError("nothing to draw: no phase of the run was measured")
    phases = result.phases.assign(phase=result.phases["phase"].replace(MEASURED_PHASES))
    rows = of_rank(result.timeline, 0)
    panel, streams = timeline_panel(rows, phases, ROW_IN)
    panels = [Panel(0.01, phases=measured), panel]  # nothing but what stands above the first
    start = min(0.0, float(rows["start_s"].min()))
    end = max(end_measured, float(rows["end_s"].max()), float(phases["end_s"].max()))
    left = left_margin([*streams, *_NAMES])
    picture, drawn = panels_over_time(panels, start, end, width_in=PAGE_WIDTH_IN, left_in=left, title=title)
    draw_activities(drawn[1], rows, streams, numbers=True)
    drawn[0].set_axis_off()
    for axes, name in zip(drawn, _NAMES, strict=True):
        width, height = axes_size_in(axes)
        x, y = -0.06 / width, 1 + 0.08 / height
        axes.text(
            x, y, name, transform=axes.transAxes, ha="right", va="bottom", fontsize=TEXT_PT, fontweight="bold",
            gid="row",
        )  # fmt: skip
    return picture


def _measured_phases(accounts: Sequence[PhaseAccount]) -> tuple[pd.DataFrame, float]:
    """The phases that were measured, one after another, and the end of the last one in seconds."""
    rows, start = [], 0.0
    for account in accounts:
        length = account.predicted_s if account.measured_s is None else account.measured_s
        if account.measured_s is not None:
            rows.append((account.phase, start, start + length, length))
        start += length
    return pd.DataFrame(rows, columns=[*PHASE_COLUMNS]), start
