"""The values that a calibration found, as multiples of the base profile's."""

from __future__ import annotations

import pandas as pd

from offsim.views.figure import (
    AXIS_IN,
    EDGE_IN,
    PAPER_WIDTH_IN,
    TEXT_PT,
    Legend,
    Picture,
    log_ticks,
    swatch,
    text_width_in,
)
from offsim.views.style import KINDS

_ROW_IN, _TITLE_IN = 0.2, 0.26
_COLOURS = {"measured": KINDS["compute"].colour, "fitted": KINDS["d2h"].colour}
_LEAST_SPAN = 1.25
"""The axis goes at least so far to either side of the base: small differences look small."""


def plot_found(table: pd.DataFrame, *, base: str) -> Picture:
    """Draw a row per measured or fitted value that the base has too: its interval, and the value; the base is at 1.

    `table` is that of a `Calibration`. ValueError where no value can be compared.
    """
    rows = table[(table["base"] > 0) & table["low"].notna()]
    if rows.empty:
        raise ValueError("nothing to draw: the base has none of the values found")
    values = [f"{found:.3g} {unit}" for found, unit in zip(rows["found"], rows["unit"], strict=True)]
    left = max(text_width_in(name, TEXT_PT) for name in rows.index) + 0.16
    right = max(text_width_in(text, TEXT_PT) for text in values) + 0.2
    body = _ROW_IN * len(rows) + 0.1
    sources = list(dict.fromkeys(str(source) for source in rows["source"]))
    handles = [swatch(_COLOURS.get(source, "black"), "", source) for source in sources]
    legend = Legend(handles, PAPER_WIDTH_IN)
    bottom = legend.height_in + AXIS_IN
    picture = Picture(PAPER_WIDTH_IN, _TITLE_IN + body + bottom)
    axes = picture.axes_at(left, bottom, PAPER_WIDTH_IN - left - right, body)
    ratios = rows[["found", "low", "high"]].div(rows["base"], axis=0)
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=1)
    for place, ((found, *interval), source) in enumerate(zip(ratios.to_numpy(), rows["source"], strict=True)):
        colour = _COLOURS.get(str(source), "black")
        axes.plot(interval, [place, place], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axes.plot([found], [place], color=colour, marker="o", markersize=4.0, zorder=3)
        axes.text(
            1.0 + 0.08 / (PAPER_WIDTH_IN - left - right), place, values[place],
            transform=axes.get_yaxis_transform(), ha="left", va="center", fontsize=TEXT_PT,
        )  # fmt: skip
    low, high = min(ratios["low"].min(), 1 / _LEAST_SPAN), max(ratios["high"].max(), _LEAST_SPAN)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.08, high * 1.08)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), list(rows.index), fontsize=TEXT_PT)
    axes.tick_params(axis="y", length=0, pad=4)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    subs = (1.0, 2.0, 5.0) if high / low > 6 else (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0)
    log_ticks(axes.xaxis, subs)
    axes.set_xlabel(f"times the value of {base}")
    picture.title_at(EDGE_IN, picture.height_in - 0.05, "Values found, with 95 % intervals")
    legend.draw(picture)
    return picture
