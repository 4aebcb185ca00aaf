"""One page of everything over time: what each stream did, how busy the links were, what memory held."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from offsim.views.bandwidth import draw_panel, panels_of
from offsim.views.figure import (
    EDGE_IN,
    LINE_IN,
    PHASE_COLUMNS,
    TEXT_PT,
    Picture,
    axes_at,
    draw_phases,
    header_height_in,
    legend_below,
    legend_rows,
    new_picture,
    require_columns,
    swatch,
    time_axis,
    title_at,
)
from offsim.views.memory import draw_tier
from offsim.views.style import occupant_looks, ordered_streams
from offsim.views.timeline import draw_activities, left_margin, legend_handles, of_rank

PAGE_WIDTH_IN = 9.0
ROW_IN = 0.2  # of a stream
BOTH_WAYS_IN, ONE_WAY_IN, TIER_IN = 1.35, 0.75, 1.3
GAP_IN, AXIS_IN, TITLE_IN = 0.16, 0.36, 0.2


def plot_page(
    timeline: pd.DataFrame,
    phases: pd.DataFrame,
    bandwidth: pd.DataFrame,
    link_capacity: Mapping[str, float],
    memory: pd.DataFrame,
    capacities: Mapping[str, float],
    *,
    rank: int = 0,
    width_in: float = PAGE_WIDTH_IN,
    title: str | None = None,
    subtitle: str | None = None,
) -> Picture:
    """Draw a rank's timeline, the bandwidth of what moves bytes and the memory tiers on one time axis.

    Links that nothing used are left out.
    """
    require_columns(phases, "phases", PHASE_COLUMNS)
    rows = of_rank(timeline, rank)
    streams = ordered_streams(rows["stream"])
    used = bandwidth.groupby("resource", sort=False)["bytes_per_s"].max()
    panels = [panel for panel in panels_of(list(used.index)) if max(used[name] for name in panel) > 0]
    tiers = list(dict.fromkeys(memory["tier"]))
    looks = occupant_looks(memory["occupant"])
    activities = legend_handles(rows)
    occupants = [swatch(colour, hatch, name) for name, (colour, hatch) in looks.items()]
    room = width_in - 2 * EDGE_IN
    activity_columns, activities_in = legend_rows([str(handle.get_label()) for handle in activities], room)
    occupant_columns, occupants_in = legend_rows(list(looks), room)

    sizes = [BOTH_WAYS_IN if len(panel) == 2 else ONE_WAY_IN for panel in panels] + [TIER_IN] * len(tiers)
    subtitle_in = 0.06 + LINE_IN * len(subtitle.splitlines()) if subtitle else 0.0
    titles_in = subtitle_in + (TITLE_IN if title else 0.0)
    header_in = titles_in + header_height_in(phases) + 0.04
    timeline_in = ROW_IN * len(streams)
    height = header_in + timeline_in + AXIS_IN + activities_in + sum(sizes) + GAP_IN * len(sizes) + AXIS_IN
    height += occupants_in
    picture = new_picture(width_in, height)
    left = max(left_margin(streams) + 0.04, 0.7)
    start = float(phases["start_s"].min())
    # A run that ran out of memory goes on after the last phase that was finished.
    end = max(float(phases["end_s"].max()), float(memory["time_s"].max()))

    def axes_below(top_in: float, size_in: float, *, label: str | None, names: bool = False) -> Axes:
        axes = axes_at(picture, left, top_in - size_in, width_in - left - EDGE_IN, size_in)
        time_axis(axes, start, end, label=label)
        draw_phases(axes, phases, labels=names)
        return axes

    top = height - header_in
    numbered = "; numbers on bars are sub-groups" if (rows["subgroup"] >= 0).any() else ""
    axes = axes_below(top, timeline_in, label="time ({unit})" + numbered, names=True)
    draw_activities(axes, rows, streams, numbers=True)
    top -= timeline_in + AXIS_IN + activities_in
    legend_below(picture, activities, EDGE_IN, activity_columns, top)
    for i, size in enumerate(sizes):
        top -= GAP_IN
        axes = axes_below(top, size, label="time ({unit})" if i == len(sizes) - 1 else None)
        top -= size
        if i < len(panels):
            draw_panel(axes, bandwidth, panels[i], link_capacity)
        else:
            tier = tiers[i - len(panels)]
            draw_tier(axes, memory[memory["tier"] == tier], tier, capacities.get(tier), looks)
    legend_below(picture, occupants, EDGE_IN, occupant_columns)
    if title:
        title_at(picture, title, EDGE_IN, height - 0.05)
    if subtitle:
        y = (height - 0.05 - (TITLE_IN if title else 0.0)) / height
        picture.text(EDGE_IN / width_in, y, subtitle, ha="left", va="top", fontsize=TEXT_PT, linespacing=1.25)
    return picture
