"""What each memory tier held over time, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from offsim.results.units import format_memory, format_time, memory_unit
from offsim.views.figure import (
    HATCH_LINE_PT,
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
    swatch,
    text_width_in,
)
from offsim.views.style import occupant_looks

OFF_SCALE_BELOW = 0.45  # of the capacity: where the peak is lower, the panel shows what is held instead of the room
PANEL_IN = 1.45
COLUMNS = ("time_s", "tier", "occupant", "bytes", "used_bytes")


def plot_memory(
    memory: pd.DataFrame,
    capacities: Mapping[str, float],
    phases: pd.DataFrame,
    *,
    width_in: float = PAPER_WIDTH_IN,
    title: str | None = None,
) -> Picture:
    """Draw a panel per tier: its occupants stacked over time, its capacity, its peak with value and instant.

    The panels begin with the phases and end with them or the last change; what was held before counts from their
    beginning on.
    """
    require_columns(memory, "memory", COLUMNS)
    tiers = list(dict.fromkeys(memory["tier"]))
    looks = occupant_looks(memory["occupant"])
    panels = [Panel(PANEL_IN) for _ in tiers]
    panels[-1] = replace(panels[-1], label="time ({unit})", legend=occupant_legend(looks))
    panels[0] = replace(panels[0], phases=phases)
    picture, drawn = panels_over_time(panels, *extent(phases, memory), width_in=width_in, left_in=0.5, title=title)
    for axes, tier in zip(drawn, tiers, strict=True):
        draw_tier(axes, memory[memory["tier"] == tier], tier, capacities.get(tier), looks)
    return picture


def extent(phases: pd.DataFrame, memory: pd.DataFrame) -> tuple[float, float]:
    """From the first phase to the last one, or to the last change: a run goes on until it runs out of memory."""
    return float(phases["start_s"].min()), max(float(phases["end_s"].max()), float(memory["time_s"].max()))


def occupant_legend(looks: Mapping[str, tuple[str, str]]) -> list[Patch]:
    """A legend entry for each occupant."""
    return [swatch(colour, hatch, occupant) for occupant, (colour, hatch) in looks.items()]


def draw_tier(
    axes: Axes, rows: pd.DataFrame, tier: str, capacity: float | None, looks: Mapping[str, tuple[str, str]]
) -> None:
    """Draw one tier's occupants, peak and capacity into axes whose time limits are set."""
    start, end = axes.get_xlim()
    # Row by row, not instant by instant: what is taken and given back at one instant may be the peak.
    occupants = [occupant for occupant in looks if (rows["occupant"] == occupant).any()]
    held = np.zeros((len(rows) + 1, len(occupants) + 1))
    for i, occupant in enumerate(occupants, 1):
        mine = rows["bytes"].where(rows["occupant"] == occupant)
        held[1:, i] = mine.ffill().fillna(0.0).to_numpy(dtype=float)
    levels = np.cumsum(held, axis=1)
    times = np.concatenate([[-np.inf], rows["time_s"].to_numpy(dtype=float)])
    used = np.concatenate([[0.0], rows["used_bytes"].to_numpy(dtype=float)])
    # Of what came before the first phase, only the outcome counts.
    seen = np.append(times[1:] >= start, True) & (times <= end)
    times, used, levels = np.maximum(times[seen], start), used[seen], levels[seen]
    peak = int(np.argmax(used))
    line = capacity if capacity is not None and used[peak] >= OFF_SCALE_BELOW * capacity else None
    top = 1.24 * max(used[peak], line or 0.0, 1.0)
    # Drawn in the unit of the axis, so that ticks are round in it.
    unit, scale = memory_unit(float(used[peak]))
    x, y = steps(times, levels / scale, end)
    for i, occupant in enumerate(occupants):
        colour, hatch = looks[occupant]
        area = axes.fill_between(x, y[:, i], y[:, i + 1], facecolor=colour, edgecolor="#00000090", linewidth=0.0)
        area.set_gid(occupant)
        area.set_zorder(2)
        if hatch:
            area.set_hatch(hatch)
            area.set_hatch_linewidth(HATCH_LINE_PT)
        if i:
            # Layers of similar grey must not run into one another.
            axes.plot(x, y[:, i], color="white", linewidth=0.4, zorder=2.2)
    axes.plot(*steps(times, used / scale, end), color="black", linewidth=0.35, zorder=2.5)
    axes.set_ylim(0.0, top / scale)
    round_ticks(axes.yaxis, 4)
    axes.set_ylabel(f"{tier} ({unit})")
    _annotate(axes, float(times[peak]), float(used[peak]), capacity, scale, off_scale=line is None)


def _annotate(axes: Axes, time_s: float, used: float, capacity: float | None, scale: float, *, off_scale: bool) -> None:
    """Mark the peak and draw the capacity line, the label of the one on the side where the other's is not."""
    start, end = axes.get_xlim()
    top = axes.get_ylim()[1] * scale
    width, height = axes_size_in(axes)
    to_in = width / (end - start)
    text = f"peak {format_memory(used)} at {format_time(time_s)}"
    if capacity:
        text += f" ({used / capacity:.0%})"
    # Centred over its point, but within the axes; above the capacity line where it would lie on it.
    half = text_width_in(text, TEXT_PT) / 2 + 0.04
    centre = min(max((time_s - start) * to_in, half), width - half)
    lift = 0.05 * top
    over_line = capacity is not None and not off_scale and used + lift + 0.14 * top / height > capacity
    base = (capacity if over_line and capacity is not None else used) + lift
    x = start + centre / to_in
    label = axes.text(x, base / scale, text, ha="center", va="bottom", fontsize=TEXT_PT, gid="peak", zorder=5)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})
    axes.plot(
        [time_s], [used / scale], marker="o", markersize=3.2, color="black", markerfacecolor="white",
        zorder=6, clip_on=False,
    )  # fmt: skip
    if capacity is None:
        return
    note = f"capacity {format_memory(capacity)}"
    if off_scale:
        note += " (beyond the axis)"
    else:
        capacity_line(axes, capacity / scale)
    # On the side where the peak is not.
    right = centre < width / 2
    x, ha = (0.995, "right") if right else (0.005, "left")
    y, va = (0.985, "top") if off_scale else ((capacity + 0.02 * top) / top, "bottom")
    axes.text(x, y, note, transform=axes.transAxes, ha=ha, va=va, fontsize=TEXT_PT, zorder=5, gid="capacity")
