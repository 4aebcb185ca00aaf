"""One page of everything over time: what each stream did, how busy the links were, what memory held."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from offsim.views.bandwidth import draw_panel, panels_of
from offsim.views.figure import Panel, Picture, panels_over_time
from offsim.views.memory import draw_tier, extent, occupant_legend
from offsim.views.style import occupant_looks
from offsim.views.timeline import draw_activities, left_margin, of_rank, timeline_panel

PAGE_WIDTH_IN = 9.0
ROW_IN = 0.2  # of a stream
BOTH_WAYS_IN, ONE_WAY_IN, TIER_IN = 1.35, 0.75, 1.3


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
    subtitle: str = "",
) -> Picture:
    """Draw a rank's timeline, the bandwidth of what moves bytes and the memory tiers on one time axis.

    Links that nothing used are left out.
    """
    rows = of_rank(timeline, rank)
    panel, streams = timeline_panel(rows, phases, ROW_IN)
    used = bandwidth.groupby("resource", sort=False)["bytes_per_s"].max()
    links = [link for link in panels_of(list(used.index)) if max(used[name] for name in link) > 0]
    tiers = list(dict.fromkeys(memory["tier"]))
    looks = occupant_looks(memory["occupant"])
    panels = [
        panel,
        *(Panel(BOTH_WAYS_IN if len(link) == 2 else ONE_WAY_IN) for link in links),
        *(Panel(TIER_IN) for _ in tiers[1:]),
        Panel(TIER_IN, "time ({unit})", occupant_legend(looks)),
    ]
    left = max(left_margin(streams) + 0.04, 0.7)
    picture, (top, *others) = panels_over_time(
        panels, *extent(phases, memory), width_in=width_in, left_in=left, title=title, subtitle=subtitle
    )
    draw_activities(top, rows, streams, numbers=True)
    for axes, link in zip(others, links, strict=False):
        draw_panel(axes, bandwidth, link, link_capacity)
    for axes, tier in zip(others[len(links) :], tiers, strict=True):
        draw_tier(axes, memory[memory["tier"] == tier], tier, capacities.get(tier), looks)
    return picture
