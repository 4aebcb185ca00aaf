"""The simulated iteration of a run with its measured phases above it, on one time axis."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from offsim.results.result import Result
from offsim.validation.accounts import PhaseAccount
from offsim.validation.run_table import MEASURED_PHASES
from offsim.views.figure import PHASE_COLUMNS, TEXT_PT, Panel, Picture, axes_size_in, panels_over_time
from offsim.views.page import PAGE_WIDTH_IN, ROW_IN
from offsim.views.style import ordered_streams
from offsim.views.timeline import draw_activities, left_margin, legend_handles, of_rank, time_label

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
    streams = ordered_streams(rows["stream"])
    panels = [
        Panel(0.01, phases=measured),  # nothing but what stands above it
        Panel(ROW_IN * len(streams), time_label(rows), legend_handles(rows), phases),
    ]
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
