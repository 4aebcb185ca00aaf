"""How busy the links were over time: PCIe in both directions, and what else moves bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from offsim.results.units import format_rate
from offsim.views.figure import (
    LETTER_IN,
    LINE_IN,
    PAPER_WIDTH_IN,
    TEXT_PT,
    Panel,
    Picture,
    axes_size_in,
    capacity_line,
    panels_over_time,
    require_columns,
    round_ticks,
    steps,
)
from offsim.views.style import KINDS, STORAGE, look_of

UP, DOWN = "H2D", "D2H"
OTHER_COLOUR = "#56B4E9"
BOTH_WAYS_IN, ONE_WAY_IN = 1.5, 0.95
COLUMNS = ("time_s", "resource", "bytes_per_s")


def plot_bandwidth(
    bandwidth: pd.DataFrame,
    link_capacity: Mapping[str, float],
    phases: pd.DataFrame,
    *,
    width_in: float = PAPER_WIDTH_IN,
    title: str | None = None,
) -> Picture:
    """Draw the bytes per second of each resource over time, its capacity and its mean use.

    The two directions of a link ("H2D" and "D2H" in their names) share a panel, H2D upwards and D2H downwards.
    """
    require_columns(bandwidth, "bandwidth", COLUMNS)
    shared = panels_of(list(dict.fromkeys(bandwidth["resource"])))
    sizes = [BOTH_WAYS_IN if len(resources) == 2 else ONE_WAY_IN for resources in shared]
    panels = [*map(Panel, sizes)]
    panels[-1] = replace(panels[-1], label="time ({unit})")
    panels[0] = replace(panels[0], phases=phases)
    start, end = float(phases["start_s"].min()), float(phases["end_s"].max())
    picture, drawn = panels_over_time(panels, start, end, width_in=width_in, left_in=0.7, title=title)
    for axes, resources in zip(drawn, shared, strict=True):
        draw_panel(axes, bandwidth, resources, link_capacity)
    return picture


def panels_of(resources: Sequence[str]) -> list[tuple[str, ...]]:
    """The resources of each panel: the two directions of a link together, first, any other alone."""
    pairs = [(name, name.replace(UP, DOWN)) for name in resources if UP in name and name.replace(UP, DOWN) in resources]
    paired = {name for pair in pairs for name in pair}
    return [*pairs, *((name,) for name in resources if name not in paired)]


def colour_of(resource: str) -> str:
    """The colour of the copies over a link, of reads and writes of a storage tier; any other resource has its own."""
    if UP in resource or DOWN in resource:
        return KINDS["h2d" if UP in resource else "d2h"].colour
    return look_of(resource).colour if resource.endswith(tuple(STORAGE)) else OTHER_COLOUR


def draw_panel(axes: Axes, bandwidth: pd.DataFrame, panel: tuple[str, ...], link_capacity: Mapping[str, float]) -> None:
    """Draw the resources of one panel into axes whose time limits are set."""
    start, end = axes.get_xlim()
    tops = []
    for name, sign in zip(panel, (1.0, -1.0), strict=False):
        rows = bandwidth[bandwidth["resource"] == name]
        times = np.clip(rows["time_s"].to_numpy(dtype=float), start, end)
        x, y = steps(times, rows["bytes_per_s"].to_numpy(dtype=float), end)
        colour = colour_of(name)
        area = axes.fill_between(x, sign * y, facecolor=colour, edgecolor=colour, linewidth=0.25, zorder=2)
        area.set_gid(name)
        mean = float(np.sum(np.diff(x) * y[:-1])) / (end - start)
        busy = float(np.sum(np.diff(x) * (y[:-1] > 0))) / (end - start)
        capacity = link_capacity.get(name)
        tops.append(capacity or float(y.max()) or 1.0)
        _note(axes, sign, mean, busy, capacity, tops[-1])
    unit = 1e9 if max(tops) >= 1e9 else 1e6
    top = 1.3 * max(tops)
    axes.set_ylim(-top if len(panel) == 2 else 0.0, top)
    round_ticks(axes.yaxis, 5 if len(panel) == 2 else 3)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value) / unit:.6g}")
    if len(panel) == 2:
        axes.axhline(0.0, color="black", linewidth=0.6, zorder=3)
    unit_name = "GB/s" if unit == 1e9 else "MB/s"
    for name, centre in zip(panel, (0.75, 0.25) if len(panel) == 2 else (0.5,), strict=True):
        width, height = axes_size_in(axes)
        lines = textwrap.wrap(f"{name} ({unit_name})", int(height / len(panel) / LETTER_IN), break_long_words=False)
        text, beside = "\n".join(lines), (-0.32 - LINE_IN * len(lines) / 2) / width
        axes.text(
            beside, centre, text, transform=axes.transAxes, rotation=90, ha="center", va="center", fontsize=TEXT_PT
        )


def _note(axes: Axes, sign: float, mean: float, busy: float, capacity: float | None, top: float) -> None:
    """The capacity line, and beyond it the mean (left) and the capacity (right)."""
    text = f"mean {format_rate(mean)}" + (f" = {mean / capacity:.0%} of capacity" if capacity else "")
    text += f", in use {busy:.0%} of the time"
    place = axes.get_yaxis_transform()
    va = "bottom" if sign > 0 else "top"
    axes.text(0.005, sign * 1.04 * top, text, transform=place, va=va, fontsize=TEXT_PT, gid="mean", zorder=5)
    if capacity:
        capacity_line(axes, sign * capacity)
        note = f"capacity {format_rate(capacity)}"
        axes.text(0.995, sign * 1.04 * top, note, transform=place, ha="right", va=va, fontsize=TEXT_PT, zorder=5)
