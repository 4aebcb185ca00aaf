"""What a drawn figure says, and whether it can be read."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

PHASES = pd.DataFrame({"phase": ["update"], "start_s": [1.0], "end_s": [3.0], "duration_s": [2.0]})


def texts(figure: Figure, gid: str) -> list[str]:
    """Texts of a figure's axes by what they are for."""
    return [t.get_text() for axes in figure.axes for t in axes.texts if t.get_gid() == gid]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure that overlap, and texts that leave it."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [t for axes in figure.axes for t in axes.texts] + list(figure.texts)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        shown += [axis.label] + [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown += [t for legend in figure.legends for t in legend.get_texts()]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in shown if t.get_text() and t.get_visible()]
    # Of two lines of one label, boxes touch while letters do not.
    inner = [(text, box.padded(-0.06 * box.height)) for text, box in boxes]
    bad = [(a, b) for i, (a, x) in enumerate(inner) for b, y in inner[i + 1 :] if x.overlaps(y)]
    width, height = figure.canvas.get_width_height()
    return bad + [(a, "edge") for a, x in boxes if x.x0 < 0 or x.y0 < -1 or x.x1 > width or x.y1 > height]
