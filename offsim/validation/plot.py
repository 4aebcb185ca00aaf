"""Pictures of predicted against measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from offsim.validation.score import SCORED, Comparison, score
from offsim.views.figure import EDGE_IN, PAPER_WIDTH_IN, TEXT_PT, TITLE_PT, Legend, Picture, log_ticks
from offsim.views.style import SERIES_COLOURS, SERIES_MARKERS

BAND = 0.10
_TOP_IN = 0.02
_BAND_COLOUR = "#E4E4E4"


def plot_scatter(compared: Sequence[Comparison]) -> Picture:
    """Draw predicted over measured values, a panel per phase, a marker per hardware, a band of 10 % either way."""
    phases = [phase for phase in SCORED if any(comparison.phase == phase for comparison in compared)]
    if not phases:
        raise ValueError("nothing to draw: no value was both measured and predicted")
    hardware = sorted({comparison.hardware for comparison in compared})
    columns = min(3, len(phases))
    rows = -(-len(phases) // columns)
    left, gap, below, above = 0.5, 0.46, 0.36, 0.22
    legend = _legend(hardware)
    size = (PAPER_WIDTH_IN - left - EDGE_IN - gap * (columns - 1)) / columns
    height = _TOP_IN + rows * (size + below + above) + legend.height_in
    picture = Picture(PAPER_WIDTH_IN, height)
    for index, phase in enumerate(phases):
        row, column = divmod(index, columns)
        bottom = height - _TOP_IN - (row + 1) * (size + above) - row * below
        axes = picture.axes_at(left + column * (size + gap), bottom, size, size)
        _panel(axes, phase, [c for c in compared if c.phase == phase], hardware, labelled=column == 0)
    legend.draw(picture)
    return picture


def _panel(axes: Axes, phase: str, compared: Sequence[Comparison], hardware: Sequence[str], *, labelled: bool) -> None:
    unit, scale = ("s", 1e-3) if compared[0].unit == "ms" else (compared[0].unit, 1.0)
    values = np.array([(c.measured, c.predicted) for c in compared]) * scale
    low, high = float(values.min()) / 1.25, float(values.max()) * 1.25
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - BAND), line * (1 + BAND), facecolor=_BAND_COLOUR, edgecolor="none", zorder=0)
    axes.plot(line, line, color="black", linewidth=0.6, zorder=1)
    for name, colour, marker in _looks(hardware):
        own = values[[c.hardware == name for c in compared]]
        axes.plot(
            *own.T, linestyle="none", marker=marker, markersize=4.2, markerfacecolor=colour, markeredgecolor="white",
            markeredgewidth=0.4, alpha=0.85, gid=name, zorder=2,
        )  # fmt: skip
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high <= 6 * low else (1.0, 2.0, 5.0) if high <= 300 * low else (1.0,)
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis, subs)
    errors = score(compared)
    note = f"{errors.n} runs\nmedian error {100 * errors.median:.1f} %\n90 % within {100 * errors.p90:.1f} %"
    above = bool(np.median(values[:, 1] / values[:, 0]) > 1 + BAND)  # then the upper left is where values are
    place, sides = ((0.96, 0.035), ("right", "bottom")) if above else ((0.04, 0.965), ("left", "top"))
    axes.text(*place, note, transform=axes.transAxes, ha=sides[0], va=sides[1], fontsize=TEXT_PT, gid="note")
    axes.set_title(phase, fontsize=TITLE_PT, fontweight="bold", loc="left", pad=3)
    axes.set_xlabel(f"measured ({unit})")
    axes.set_ylabel(f"predicted ({unit})" if labelled else "")


def _looks(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each name with its colour and marker."""
    return zip(names, cycle(SERIES_COLOURS), cycle(SERIES_MARKERS), strict=False)


def _legend(hardware: Sequence[str]) -> Legend:
    handles: list[Line2D | Patch] = [
        Line2D([], [], linestyle="none", marker=marker, markersize=5, color=colour, label=name)
        for name, colour, marker in _looks(hardware)
    ]
    handles.append(Line2D([], [], color="black", linewidth=0.6, label="predicted = measured"))
    handles.append(Patch(facecolor=_BAND_COLOUR, edgecolor="none", label=f"within {100 * BAND:.0f} %"))
    return Legend(handles, PAPER_WIDTH_IN)
