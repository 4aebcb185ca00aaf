"""The timeline of an iteration as a Gantt chart: a row per stream, for one schedule or for several to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from offsim.results.units import format_time
from offsim.views.figure import (
    EDGE_IN,
    HATCH_LINE_PT,
    PAPER_WIDTH_IN,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    Panel,
    Picture,
    axes_size_in,
    panels_over_time,
    require_columns,
    swatch,
    text_width_in,
)
from offsim.views.intervals import from_their_beginning
from offsim.views.style import grouped_streams, ink_on, lighter, look_of, ordered_kinds, rgb

BAR = 0.74  # of a row's height
WAIT_BAR = 0.22
LOST_BAR = 0.09
SLOWED_BEYOND = 1.1  # times the duration alone: less is not worth a mark
COLUMNS = ("rank", "stream", "activity", "subgroup", "layer", "enqueued_s", "start_s", "end_s", "alone_s")


def plot_timeline(
    timeline: pd.DataFrame,
    phases: pd.DataFrame,
    *,
    rank: int = 0,
    window_s: tuple[float, float] | None = None,
    width_in: float = PAPER_WIDTH_IN,
    title: str | None = None,
) -> Picture:
    """Draw what each stream of a rank did when: a bar per activity, coloured by kind.

    Every second sub-group or layer is lighter, sub-groups are numbered where the number fits. A line under a bar is the
    time it lost because others used the same resources. `window_s` (from, to, in seconds) shows a part of the time.
    Streams that only wait are left out.
    """
    rows = of_rank(timeline, rank)
    every = pd.concat([rows, phases])
    start, end = window_s or (float(every["start_s"].min()), float(every["end_s"].max()))
    shown = rows[(rows["end_s"] >= start) & (rows["start_s"] <= end)]
    if shown.empty:
        raise ValueError(f"rank {rank} does nothing from {start:g} to {end:g} s")
    panel, streams = timeline_panel(shown, phases, 0.21)
    left, simulated = left_margin(streams), "iteration" in rows
    picture, (axes,) = panels_over_time(
        [panel], start, end, width_in=width_in, left_in=left, title=title, neighbours=simulated
    )
    draw_activities(axes, shown, streams, numbers=True)
    return picture


def plot_comparison(
    results: Sequence[tuple[str, pd.DataFrame, pd.DataFrame]],
    *,
    rank: int = 0,
    width_in: float = PAPER_WIDTH_IN,
    row_in: float = 0.135,
    numbers: bool = False,
    title: str | None = None,
) -> Picture:
    """Draw several schedules, each (label, timeline, phases), below one another on one time axis.

    Each panel begins with its first phase; its iteration time stands at its end, with the speed-up over the first.
    `row_in` is the height of a stream in inches; `numbers` tells sub-groups where there is room.
    """
    if not results:
        raise ValueError("nothing to compare: results is empty")
    rows = [of_rank(timeline, rank) for _, timeline, _ in results]
    origins = [float(phases["start_s"].min()) for _, _, phases in results]
    totals = [float(phases["end_s"].max()) - origin for (_, _, phases), origin in zip(results, origins, strict=True)]
    streams = [streams_of(own) for own in rows]
    ends = [
        f"{format_time(total)}" + (f"\n{totals[0] / total:.2f}\N{MULTIPLICATION SIGN}" if i and total > 0 else "")
        for i, total in enumerate(totals)
    ]
    panels = [
        Panel(row_in * len(names), phases=_since(phases, origin), title=label)
        for (label, _, phases), origin, names in zip(results, origins, streams, strict=True)
    ]
    every = pd.concat(rows)
    later = any(own["end_s"].max() > phases["end_s"].max() for own, (_, _, phases) in zip(rows, results, strict=True))
    beyond = "Right of the black line: work that runs into the next iteration." if later else ""
    panels[-1] = replace(
        panels[-1],
        label="time since the iteration began ({unit})",
        legend=legend_handles(every),
        caption=f"{caption_of(every, numbers=numbers)} {beyond}",
    )
    left = max(left_margin(names) for names in streams)
    axes_width = width_in - left - EDGE_IN
    # Room for the iteration time right of the longest panel.
    room = max(text_width_in(text, TITLE_PT, "bold") for text in ends) + 0.12
    span = max(totals) * axes_width / (axes_width - room)
    picture, drawn = panels_over_time(panels, 0.0, span, width_in=width_in, left_in=left, title=title)
    for axes, own, origin, names, total, end in zip(drawn, rows, origins, streams, totals, ends, strict=True):
        draw_activities(axes, _since(own, origin), names, numbers=numbers)
        axes.axvline(total, color="black", linewidth=0.9, zorder=4)
        mark = axes.text(
            total + 0.06 * span / axes_width, 0.5, end, transform=axes.get_xaxis_transform(),
            va="center", fontsize=TITLE_PT, fontweight="bold", gid="iteration time",
        )  # fmt: skip
        mark.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0})
    return picture


def _since(table: pd.DataFrame, origin_s: float) -> pd.DataFrame:
    """The table with times from this instant on."""
    return table.assign(start_s=table["start_s"] - origin_s, end_s=table["end_s"] - origin_s)


def timeline_panel(rows: pd.DataFrame, phases: pd.DataFrame, row_in: float) -> tuple[Panel, list[str]]:
    """A panel for activities, with what explains them, and the streams of its rows."""
    streams = streams_of(rows)
    panel = Panel(row_in * len(streams), "time ({unit})", legend_handles(rows), caption_of(rows), phases)
    return panel, streams


def streams_of(rows: pd.DataFrame) -> list[str]:
    """The streams in the order of rows."""
    return list(grouped_streams(rows["stream"], rows["activity"]))


def draw_activities(axes: Axes, rows: pd.DataFrame, streams: Sequence[str], *, numbers: bool) -> None:
    """Draw the activities of one rank into axes whose time limits are set, the first stream on top.

    One collection per kind of activity, so that tens of thousands of bars cost little.
    """
    groups = grouped_streams(rows["stream"], rows["activity"])
    for i, (above, below) in enumerate(pairwise(streams)):
        if groups[above] != groups[below]:
            ends = axes.get_xlim()[0], float(rows["end_s"].max())
            axes.plot(ends, (i + 0.5, i + 0.5), color="#DDDDDD", linewidth=0.5, zorder=1, gid="group", scalex=False)
    row_of = {stream: i for i, stream in enumerate(streams)}
    place = rows["stream"].map(row_of).to_numpy(dtype=float)
    start, end = rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)
    kinds = rows["activity"].to_numpy(dtype=object)
    subgroup = rows["subgroup"].to_numpy(dtype=int)
    light = every_second(place, subgroup) | every_second(place, rows["layer"].to_numpy(dtype=int))
    for kind in ordered_kinds(kinds.tolist()):
        look, mine = look_of(kind), kinds == kind
        bar = WAIT_BAR if kind == "wait" else BAR
        corners = _boxes(start[mine], end[mine], place[mine] - bar / 2, place[mine] + bar / 2)
        colours = np.where(light[mine, None], np.array(lighter(look.colour)), np.array(rgb(look.colour)))
        # An edge of the bar's own colour keeps a bar of microseconds visible.
        edge = 0.0 if kind == "wait" else 0.25
        _add_boxes(axes, corners, facecolors=colours, edgecolors=colours, linewidths=edge, zorder=2, gid=kind)
        if look.hatch:
            # Drawn over the bars: a collection's hatch takes the colour of its edges.
            over = _add_boxes(axes, corners, facecolors="none", edgecolors="#00000090", linewidths=0.0, zorder=2.1)
            over.set_hatch(look.hatch)
            over.set_hatch_linewidth(HATCH_LINE_PT)
    slowed = slowed_rows(rows)
    lost_from = start + rows["alone_s"].to_numpy(dtype=float)
    lost = _boxes(lost_from[slowed], end[slowed], place[slowed] + BAR / 2, place[slowed] + BAR / 2 + LOST_BAR)
    _add_boxes(axes, lost, facecolors="black", linewidths=0.0, zorder=2.2, gid="lost")
    axes.set_ylim(len(streams) - 0.45, -0.55)
    axes.set_yticks(range(len(streams)), streams, fontsize=TEXT_PT)
    axes.tick_params(axis="y", length=0, pad=4)
    axes.spines["left"].set_visible(False)
    if numbers:
        _number_subgroups(axes, place, start, end, subgroup, kinds, light)


def _number_subgroups(
    axes: Axes,
    place: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    subgroup: np.ndarray,
    kinds: np.ndarray,
    light: np.ndarray,
) -> None:
    low, high = axes.get_xlim()
    width, _ = axes_size_in(axes)
    # Only what is seen of a bar carries its number.
    start, end = np.maximum(start, low), np.minimum(end, high)
    bar_in = (end - start) * width / (high - low)
    for i in np.flatnonzero((subgroup >= 0) & (kinds != "wait") & (bar_in > 0)):
        text = str(subgroup[i])
        if text_width_in(text, SMALL_PT) + 0.02 > bar_in[i]:
            continue
        look = look_of(str(kinds[i]))
        background = lighter(look.colour) if light[i] else rgb(look.colour)
        number = axes.text(
            (start[i] + end[i]) / 2, place[i], text, ha="center", va="center_baseline",
            fontsize=SMALL_PT, color=ink_on(background), zorder=3, gid="sub-group",
        )  # fmt: skip
        if look.hatch:
            number.set_path_effects([patheffects.withStroke(linewidth=2.0, foreground=background)])


def every_second(place: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Which activities belong to every second sub-group or layer among those of their own stream.

    Not the odd indices: under an update stride of 2 a stream has only odd ones, or only even ones.
    """
    light = np.zeros(len(index), dtype=bool)
    for row in np.unique(place):
        mine = (place == row) & (index >= 0)
        light[mine] = np.unique(index[mine], return_inverse=True)[1] % 2 == 1
    return light


def _boxes(left: np.ndarray, right: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Corners of rectangles, shape (n, 4, 2)."""
    xs = np.stack([left, right, right, left], axis=1)
    ys = np.stack([low, low, high, high], axis=1)
    return np.stack([xs, ys], axis=2)


def _add_boxes(axes: Axes, corners: np.ndarray, **look: Any) -> PolyCollection:
    # matplotlib has a fast path for one array of all corners, which its annotations leave out.
    boxes = PolyCollection(corners, **look)  # type: ignore[arg-type]
    axes.add_collection(boxes, autolim=False)
    return boxes


def slowed_rows(rows: pd.DataFrame) -> np.ndarray:
    """Which activities took notably longer than with nothing else running."""
    alone = rows["alone_s"].to_numpy(dtype=float)
    took = (rows["end_s"] - rows["start_s"]).to_numpy(dtype=float)
    return np.asarray((alone > 0) & (took > SLOWED_BEYOND * alone) & (rows["activity"] != "wait").to_numpy())


def of_rank(timeline: pd.DataFrame, rank: int) -> pd.DataFrame:
    """The activities of a rank that can be seen; ValueError where it has none."""
    require_columns(timeline, "timeline", COLUMNS)
    rows = timeline[timeline["rank"] == rank]
    if rows.empty:
        ranks = ", ".join(str(known) for known in sorted(timeline["rank"].unique())) or "none"
        raise ValueError(f"the timeline has no rank {rank}; it has {ranks}")
    rows = from_their_beginning(rows)
    # Most waits are over at once: nothing to see. A stream that does nothing else is bookkeeping.
    works = rows["activity"] != "wait"
    return rows[(works | (rows["end_s"] > rows["start_s"])) & rows["stream"].isin(rows.loc[works, "stream"])]


def caption_of(rows: pd.DataFrame, *, numbers: bool = True) -> str:
    """What the marks on bars stand for, as far as there are any."""
    subgroups, layers = (bool((rows[column] >= 0).any()) for column in ("subgroup", "layer"))
    said = []
    if subgroups or layers:
        shaded = " or ".join(["sub-group"] * subgroups + ["layer"] * layers)
        said.append(f"Every second {shaded} of a stream is lighter.")
    if numbers and subgroups:
        said.append("Numbers on bars are sub-groups.")
    if bool(slowed_rows(rows).any()):
        said.append("A line under a bar is time lost to others on the same resource.")
    if "iteration" in rows and (rows["iteration"] < 1).any():
        said.append("At the start: work left over from the previous iteration.")
    return " ".join(said)


def left_margin(streams: Sequence[str]) -> float:
    """Room for the streams' names left of the axes, in inches."""
    return max(text_width_in(name, TEXT_PT) for name in streams) + 0.16


def legend_handles(rows: pd.DataFrame) -> list[Patch]:
    """A legend entry for each kind of activity that occurs."""
    looks = [look_of(kind) for kind in ordered_kinds(rows["activity"].tolist())]
    handles = [swatch(look.colour, look.hatch, look.label) for look in looks]
    if bool(slowed_rows(rows).any()):
        handles.append(Patch(facecolor="black", linewidth=0.0, label="lost to contention"))
    return handles
