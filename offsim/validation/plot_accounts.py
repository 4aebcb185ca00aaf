"""The simulated iteration of a run with its measured phases above it, on one time axis."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from offsim.results.result import Result
from offsim.validation.accounts import PhaseAccount
from offsim.validation.run_table import MEASURED_PHASES
from offsim.views.figure import (
    AXIS_IN,
    EDGE_IN,
    TEXT_PT,
    TITLE_IN,
    Picture,
    axes_at,
    draw_phases,
    header_height_in,
    legend_below,
    legend_rows,
    new_picture,
    time_axis,
    title_at,
)
from offsim.views.page import PAGE_WIDTH_IN, ROW_IN
from offsim.views.style import ordered_streams
from offsim.views.timeline import draw_activities, left_margin, legend_handles, of_rank, time_label

_GAP_IN = 0.05
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
    handles = legend_handles(rows)
    columns, legend_in = legend_rows([str(handle.get_label()) for handle in handles], PAGE_WIDTH_IN - 2 * EDGE_IN)
    headers = header_height_in(measured) + header_height_in(phases)
    body_in = ROW_IN * len(streams)
    height = TITLE_IN + headers + 2 * _GAP_IN + body_in + AXIS_IN + legend_in
    picture = new_picture(PAGE_WIDTH_IN, height)
    left = left_margin([*streams, *_NAMES])
    axes = axes_at(picture, left, legend_in + AXIS_IN, PAGE_WIDTH_IN - left - EDGE_IN, body_in)
    start = min(0.0, float(rows["start_s"].min()))
    end = max(end_measured, float(rows["end_s"].max()), float(phases["end_s"].max()))
    time_axis(axes, start, end, label=time_label(rows))
    draw_phases(axes, phases)
    draw_activities(axes, rows, streams, numbers=True)
    # The measured brackets stand on axes without height of their own, above the predicted ones.
    above_in = legend_in + AXIS_IN + body_in + header_height_in(phases) + _GAP_IN
    brackets = axes_at(picture, left, above_in, PAGE_WIDTH_IN - left - EDGE_IN, _GAP_IN)
    time_axis(brackets, start, end, label=None)
    brackets.set_axis_off()
    draw_phases(brackets, measured)
    for name, bottom_in in zip(_NAMES, (above_in + _GAP_IN, legend_in + AXIS_IN + body_in), strict=True):
        x, y = (left - 0.06) / PAGE_WIDTH_IN, (bottom_in + 0.08) / height
        picture.text(x, y, name, ha="right", va="bottom", fontsize=TEXT_PT, fontweight="bold", gid="row")
    title_at(picture, title, EDGE_IN, height - 0.05)
    legend_below(picture, handles, EDGE_IN, columns)
    return picture


def _measured_phases(accounts: Sequence[PhaseAccount]) -> tuple[pd.DataFrame, float]:
    """The phases that were measured, one after another, and the end of the last one in seconds."""
    rows, start = [], 0.0
    for account in accounts:
        length = account.predicted_s if account.measured_s is None else account.measured_s
        if account.measured_s is not None:
            rows.append((account.phase, start, start + length, length))
        start += length
    return pd.DataFrame(rows, columns=["phase", "start_s", "end_s", "duration_s"]), start
