"""Settings of all tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from matplotlib.figure import Figure

from offsim.cli import main

# How long an example takes says how busy the machine is, not whether the code is right. Continuous integration tries
# the same examples each time; elsewhere each run tries others.
settings.register_profile("offsim", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("offsim")

Complaint = Callable[..., str]


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Run a command that must fail with one message and leave the test's folder as it is; return the message."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def complaint(*arguments: object) -> str:
        capsys.readouterr()
        before = files()
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("Error: ")
        assert files() == before
        return printed.err.removeprefix("Error: ").removesuffix("\n")

    return complaint


@pytest.fixture(scope="session")
def overlaps() -> Callable[[Figure], list[tuple[str, str]]]:
    """Pairs of texts of a figure that overlap, and texts that leave it."""

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

    return overlapping
