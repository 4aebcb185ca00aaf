"""Fixtures of views: a made-up iteration under three schedules, and what a drawn figure says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from made_up_iteration import Tables, build
from matplotlib.figure import Figure


@pytest.fixture(scope="session")
def dos() -> Tables:
    return build("deep_optimizer_states")


@pytest.fixture(scope="session")
def baseline() -> Tables:
    return build("zero3_offload")


@pytest.fixture(scope="session")
def async_grads() -> Tables:
    return build("zero3_offload_async_grads")


@pytest.fixture(scope="session")
def texts() -> Callable[[Figure, str], list[str]]:
    """Texts of a figure's axes by what they are for."""
    return lambda figure, gid: [t.get_text() for axes in figure.axes for t in axes.texts if t.get_gid() == gid]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
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


@pytest.fixture(scope="session")
def overlaps() -> Callable[[Figure], list[tuple[str, str]]]:
    """Pairs of texts of a figure that overlap, and texts that leave it."""
    return overlapping
