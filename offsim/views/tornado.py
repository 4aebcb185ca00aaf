"""A tornado chart: how far a time moves as each value goes to either end of its range, the farthest on top."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from offsim.results.units import format_time
from offsim.views.figure import (
    AXIS_IN,
    EDGE_IN,
    HATCH_LINE_PT,
    LINE_IN,
    PAPER_WIDTH_IN,
    SMALL_PT,
    TEXT_PT,
    Legend,
    Picture,
    require_columns,
    round_ticks,
    swatch,
    text_width_in,
)

COLUMNS = ("name", "unit", "low", "high", "known", "time_low_s", "time_high_s")
LOW, HIGH, BAND = "#E69F00", "#0072B2", "#EBEBEB"
HATCH = "//////"
NEXT_TO_NOTHING = 1e-3
"""A bar this much shorter than the longest is only counted."""
_PREFIXES = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
ROW_IN, BAR, GAP_IN = 0.29, 0.62, 0.05


def plot_tornado(
    ranges: pd.DataFrame,
    time_s: float,
    *,
    half_s: float | None = None,
    most: int = 15,
    width_in: float = PAPER_WIDTH_IN,
    title: str | None = None,
) -> Picture:
    """Draw a bar from the time now to the time at each end of a value's range, for the `most` that move it farthest.

    Ranges that are no `known` intervals are hatched among those that are. `half_s` is the half-width of the
    prediction's interval, drawn as a band behind the bars.
    """
    require_columns(ranges, "ranges", COLUMNS)
    reach = (ranges[["time_low_s", "time_high_s"]] - time_s).abs().max(axis="columns")
    order = reach.sort_values(ascending=False, kind="stable").index
    count = min(most, int((reach >= NEXT_TO_NOTHING * reach.max()).sum()))
    rows, left_out = ranges.loc[order[:count]], order[count:]
    handles = [swatch(LOW, "", "value at its low end"), swatch(HIGH, "", "value at its high end")]
    hatched = rows["known"].any() and not rows["known"].all()
    if hatched:
        handles.append(swatch("white", HATCH, "no interval known"))
    if half_s is not None:
        handles.append(swatch(BAND, "", f"interval of the time, by held-out runs: ± {format_time(half_s)}"))
    legend = Legend(handles, width_in)
    columns_of = (rows[name].tolist() for name in ("low", "high", "unit", "known"))
    labels = list(zip(rows["name"].tolist(), map(range_text, *columns_of), strict=True))
    left = EDGE_IN + 0.06 + max(text_width_in(text, TEXT_PT) for label in labels for text in label)
    below_in = AXIS_IN + legend.height_in
    picture = Picture(width_in, (0.3 if title else 0.1) + ROW_IN * len(rows) + below_in)
    panel_in = width_in - left - EDGE_IN - 0.15  # a tick's label may stand half beyond the axes
    axes = picture.axes_at(left, below_in, panel_in, ROW_IN * len(rows))
    _scale(axes, rows, time_s, half_s, panel_in)
    times = zip(rows["time_low_s"] - time_s, rows["time_high_s"] - time_s, rows["known"], strict=True)
    for place, (label, (low, high, known)) in enumerate(zip(labels, times, strict=True)):
        _label_row(axes, place, label)
        _draw_row(axes, place, {LOW: low, HIGH: high}, HATCH if hatched and not known else "")
    caption = f"change of the iteration's time, {format_time(time_s)}"
    if len(left_out):
        caption += f"; {len(left_out)} more values change it by at most {format_time(float(reach[left_out].max()))}"
    axes.set_xlabel(caption)
    picture.title_at(EDGE_IN, picture.height_in - 0.05, title)
    legend.draw(picture)
    return picture


def _scale(axes: Axes, rows: pd.DataFrame, time_s: float, half_s: float | None, width_in: float) -> None:
    """Limits with room for the numbers at the bars' ends, ticks, and the band."""
    ends = [*(rows["time_low_s"] - time_s), *(rows["time_high_s"] - time_s), half_s or 0.0, -(half_s or 0.0), 0.0]
    low, high = min(ends), max(ends)
    span = (high - low) or time_s / 100
    room = (text_width_in("+88.8 ms", SMALL_PT) + 2 * GAP_IN) / width_in * span * 1.25
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    unit, factor = ("s", 1.0) if span >= 2 else ("ms", 1e3) if span >= 2e-3 else ("µs", 1e6)
    round_ticks(axes.xaxis, 7)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x * factor:+g} {unit}" if x else "0")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.4)
    if half_s is not None:
        axes.axvspan(-half_s, half_s, facecolor=BAND, edgecolor="none", zorder=0, gid="interval")
    axes.axvline(0.0, color="black", linewidth=0.8, zorder=4)


def _draw_row(axes: Axes, place: int, changes: dict[str, float], hatch: str) -> None:
    same_side = changes[LOW] * changes[HIGH] > 0
    # Where both ends move the time the same way, each has half of the row.
    size = BAR / 2 if same_side else BAR
    for colour, change in changes.items():
        y = place + ((-size / 2 if colour == LOW else size / 2) if same_side else 0.0)
        (bar,) = axes.barh(y, change, size, color=colour, edgecolor="white", linewidth=0.0, zorder=3)
        bar.set_hatch(hatch)
        bar.set_hatch_linewidth(HATCH_LINE_PT)
        right = change > 0 or (change == 0 and sum(changes.values()) < 0)
        text = f"{'+' if change > 0 else '-' if change < 0 else ''}{format_time(abs(change))}"
        shift, ha = (72 * GAP_IN, "left") if right else (-72 * GAP_IN, "right")
        axes.annotate(
            text, (change, y), (shift, 0), textcoords="offset points", ha=ha, va="center_baseline",
            fontsize=SMALL_PT, zorder=5, gid="change",
        )  # fmt: skip


def _label_row(axes: Axes, place: int, lines: tuple[str, str]) -> None:
    for text, above, size, colour in zip(lines, (0.5, -0.5), (TEXT_PT, SMALL_PT), ("black", "#666666"), strict=True):
        shift = (-72 * 0.06, above * 72 * LINE_IN * 0.95)
        axes.annotate(
            text, (0, place), shift, xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            va="center_baseline", fontsize=size, color=colour, annotation_clip=False,
        )  # fmt: skip


def range_text(low: float, high: float, unit: str, known: bool) -> str:
    """Both ends and the unit they share: "242 to 275 GB/s"; of a range that is no interval also how wide it is."""
    if unit == "s":
        text = f"{format_time(low)} to {format_time(high)}"
    elif unit == "1":
        text = f"{low:.3g} to {high:.3g}"
    else:
        prefix, scale = next(((p, s) for p, s in _PREFIXES.items() if high >= s), ("", 1.0))
        text = f"{low / scale:.3g} to {high / scale:.3g} {prefix}{unit}"
    return text if known else f"{text}, ± {100 * (high - low) / (high + low):.0f} %"
