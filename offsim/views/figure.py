"""What every picture shares: a figure laid out in inches, the phases above its axes, a legend below, saving.

Only Figure objects, never pyplot: no global state, no display needed.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory

from offsim.inputs.files import atomic_write
from offsim.results.units import format_time
from offsim.views.intervals import lanes_of

PAPER_WIDTH_IN = 7.0
PHASE_COLUMNS = ("phase", "start_s", "end_s", "duration_s")
EDGE_IN = 0.1
TEXT_PT = 7.0
SMALL_PT = 6.0
TITLE_PT = 8.5
LINE_IN = TEXT_PT * 1.25 / 72
LETTER_IN = 0.055  # width, about
HATCH_LINE_PT = 0.45
LANE_IN = 2 * LINE_IN + 0.1  # of the phases' names: bracket, two lines
GAP_IN, AXIS_IN, TITLE_IN = 0.15, 0.36, 0.2  # between panels; for the numbers of a time axis; for a title
FILE_DPI = 200
PHASE_SHADES = ("#F1F1F1", "#FFFFFF")
# Neither clock nor version of the drawing library in a file: the same picture is the same bytes.
FILE_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}


_Span = tuple[str, float, float, float]  # phase, from, to, duration: all in seconds
PREVIOUS, NEXT = "previous", "next"  # iteration: instead of a phase, without a duration
SEEN_FROM = 0.005  # of the axis: less of a neighbouring iteration is not named


class Picture(Figure):
    """A white figure laid out in inches from its lower left corner, drawn by Agg. Notebooks show it by itself."""

    def __init__(self, width_in: float, height_in: float) -> None:
        super().__init__(figsize=(width_in, height_in), facecolor="white")
        FigureCanvasAgg(self)
        self.width_in, self.height_in = width_in, height_in

    def axes_at(self, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
        """Add axes with thin lines and small text."""
        across, up = self.width_in, self.height_in
        axes = self.add_axes((left_in / across, bottom_in / up, width_in / across, height_in / up))
        axes.tick_params(labelsize=TEXT_PT, width=0.6, length=2.5, pad=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize(TEXT_PT)
            axis.labelpad = 2
        for name, spine in axes.spines.items():
            spine.set_linewidth(0.6)
            spine.set_visible(name in ("left", "bottom"))
        axes.set_axisbelow(True)
        return axes

    def text_at(self, left_in: float, top_in: float, text: str, **look: Any) -> None:
        """Write a text whose upper left corner is here, unless the look aligns it otherwise."""
        placed: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": TEXT_PT} | look
        self.text(left_in / self.width_in, top_in / self.height_in, text, **placed)

    def title_at(self, left_in: float, top_in: float, text: str | None) -> None:
        """Write a bold title, if there is one."""
        if text:
            self.text_at(left_in, top_in, text, fontsize=TITLE_PT, fontweight="bold")

    def to_png(self, dpi: float = FILE_DPI) -> bytes:
        """The bytes of a PNG file of it."""
        buffer = BytesIO()
        _save(self, buffer, "png", dpi)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.to_png(150)


def _save(figure: Figure, target: IO[bytes], kind: str, dpi: float) -> None:
    # Type 42 keeps text as text in PDF files, as publishers ask; the salt replaces random names inside SVG files.
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "offsim", "savefig.bbox": "standard"}):
        figure.savefig(target, format=kind, dpi=dpi, metadata=FILE_METADATA[kind])


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, PDF or SVG, by the path's suffix, in one step: a failure leaves the old file."""
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FILE_METADATA:
        raise ValueError(f"{os.fspath(path)!r}: a picture is written as .png, .pdf or .svg")
    with atomic_write(path) as handle:
        _save(figure, handle, kind, FILE_DPI)


@lru_cache(maxsize=4096)
def text_width_in(text: str, size_pt: float, weight: str = "normal") -> float:
    """Width of the widest line of a text, in inches."""
    font = FontProperties(size=size_pt, weight=weight)
    measure = TextToPath().get_text_width_height_descent
    return max(measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72


def axes_size_in(axes: Axes) -> tuple[float, float]:
    """Width and height of axes in inches."""
    box = axes.get_position()
    total_w, total_h = (float(size) for size in axes.get_figure(root=True).get_size_inches())  # type: ignore[union-attr]
    return box.width * total_w, box.height * total_h


def time_axis(axes: Axes, start_s: float, end_s: float, *, label: str | None) -> None:
    """Set the limits and ticks of the time axis; None instead of a label hides the numbers too."""
    span = end_s - start_s
    axes.set_xlim(start_s, end_s if span > 0 else start_s + 1e-6)
    width, _ = axes_size_in(axes)
    round_ticks(axes.xaxis, max(2, int(width / 0.6)))
    unit, factor = ("s", 1.0) if span >= 0.2 else ("ms", 1e3) if span >= 2e-4 else ("µs", 1e6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * factor:.7g}")
    if label is None:
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(label.format(unit=unit))


def round_ticks(axis: Axis, count: int) -> None:
    """Put at most about so many ticks at round numbers."""
    axis.set_major_locator(MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]))


def log_ticks(axis: Axis, multiples: Sequence[float]) -> None:
    """Put ticks of a logarithmic axis at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=multiples, numticks=12))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def capacity_line(axes: Axes, y: float) -> None:
    """Draw a dashed line at a capacity."""
    axes.axhline(y, color="black", linewidth=0.9, linestyle=(0, (5, 2)), zorder=4, gid="capacity")


@dataclass(frozen=True)
class Panel:
    """A part of a picture over time. With a label it has numbers at its time axis, below them its legend and caption.

    Its title and its phases stand above it; without phases it is shaded as the panel above.
    """

    height_in: float
    label: str | None = None
    legend: Sequence[Patch] = ()
    caption: str = ""
    phases: pd.DataFrame | None = None
    title: str = ""

    @property
    def header_in(self) -> float:
        """Height of what stands above it."""
        title_in = TITLE_IN if self.title else 0.0
        if self.phases is None:
            return title_in
        lanes = lanes_of(self.phases["start_s"].tolist(), self.phases["end_s"].tolist())
        return (max(lanes, default=0) + 1) * LANE_IN + 0.04 + title_in

    @property
    def axis_in(self) -> float:
        """Height of its time axis' numbers and label."""
        return AXIS_IN if self.label else 0.0


def panels_over_time(
    panels: Sequence[Panel],
    start_s: float,
    end_s: float,
    *,
    width_in: float,
    left_in: float,
    title: str | None,
    subtitle: str = "",
    neighbours: bool = False,
) -> tuple[Picture, list[Axes]]:
    """A picture of panels below one another with the same time axis, and the panels' axes. The first one has phases.

    With `neighbours`, what is seen beyond the phases is named after the previous and the next iteration.
    """
    legends = [Legend(panel.legend, width_in, panel.caption) for panel in panels]
    above_in = (TITLE_IN if title else 0.0) + (0.06 + LINE_IN * len(subtitle.splitlines()) if subtitle else 0.0)
    height = above_in + GAP_IN * (len(panels) - 1) + sum(legend.height_in for legend in legends)
    height += sum(panel.header_in + panel.height_in + panel.axis_in for panel in panels)
    picture = Picture(width_in, height)
    drawn: list[Axes] = []
    phases = pd.DataFrame(columns=PHASE_COLUMNS)
    top = height - above_in
    for panel, legend in zip(panels, legends, strict=True):
        phases = phases if panel.phases is None else panel.phases
        picture.title_at(left_in, top - 0.05, panel.title)
        top -= panel.header_in + panel.height_in
        axes = picture.axes_at(left_in, top, width_in - left_in - EDGE_IN, panel.height_in)
        time_axis(axes, start_s, end_s, label=panel.label)
        draw_phases(axes, phases, labels=panel.phases is not None, neighbours=neighbours)
        drawn.append(axes)
        top -= panel.axis_in + legend.height_in
        legend.draw(picture, top)
        top -= GAP_IN
    picture.title_at(EDGE_IN, height - 0.05, title)
    if subtitle:
        picture.text_at(EDGE_IN, height - 0.05 - (TITLE_IN if title else 0.0), subtitle, linespacing=1.25)
    return picture, drawn


def spread(centres: Sequence[float], widths: Sequence[float], high: float, gap: float) -> list[float]:
    """Move centres of labels apart, as little to the right or back to the left as needed to stay within 0..high."""
    places = list(centres)
    edge = 0.0
    for i, width in enumerate(widths):
        places[i] = max(places[i], edge + width / 2)
        edge = places[i] + width / 2 + gap
    edge = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], edge - widths[i] / 2)
        edge = places[i] - widths[i] / 2 - gap
    return places


def draw_phases(axes: Axes, phases: pd.DataFrame, *, labels: bool, neighbours: bool) -> None:
    """Shade the phases; with `labels`, a bracket above the axes over each, its name and duration on top.

    The time limits of the axes must be set. With `neighbours`, what lies before and after is named.
    """
    require_columns(phases, "phases", PHASE_COLUMNS)
    low, high = axes.get_xlim()
    spans: list[_Span] = [
        span for span in phases[[*PHASE_COLUMNS]].itertuples(index=False, name=None) if span[1] < high and span[2] > low
    ]
    for i, (_, start, end, _) in enumerate(spans):
        axes.axvspan(max(start, low), min(end, high), facecolor=PHASE_SHADES[i % 2], edgecolor="none", zorder=0)
        axes.axvline(end, color="#888888", linewidth=0.5, linestyle=(0, (3, 2)), zorder=0.5)
    around = [(PREVIOUS, low, min((span[1] for span in spans), default=low), math.nan)]
    around += [(NEXT, max((span[2] for span in spans), default=high), high, math.nan)]
    around = [span for span in around if neighbours and span[2] - span[1] > SEEN_FROM * (high - low)]
    for name, start, end, _ in around:
        axes.axvline(end if name == PREVIOUS else start, color="black", linewidth=0.9, zorder=4, gid="iteration")
    if not labels:
        return
    spans = sorted([*spans, *around], key=lambda span: span[1])
    lanes = lanes_of([span[1] for span in spans], [span[2] for span in spans])
    for lane in sorted(set(lanes)):
        _draw_labels(axes, [span for span, at in zip(spans, lanes, strict=True) if at == lane], lane)


def _draw_labels(axes: Axes, spans: list[_Span], lane: int) -> None:
    low, high = axes.get_xlim()
    width, height = axes_size_in(axes)
    per_s = width / (high - low)
    base = 1 + (0.03 + lane * LANE_IN) / height
    tick = 0.035 / height
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for _, start, end, duration in spans:
        if math.isnan(duration):
            continue
        # Brackets of neighbours must not touch; one that goes on beyond the axes has no tick there.
        inset = min(0.01 / per_s, (min(end, high) - max(start, low)) / 4)
        xs = [max(start, low) + inset] * 2 + [min(end, high) - inset] * 2
        ys = [base if start >= low else base + tick, base + tick, base + tick, base if end <= high else base + tick]
        axes.add_line(Line2D(xs, ys, transform=place, clip_on=False, color="black", linewidth=0.6))
    texts = [(name, "iteration" if math.isnan(time) else format_time(time)) for name, _, _, time in spans]
    widths = [text_width_in("\n".join(lines), TEXT_PT) for lines in texts]
    seen = [(max(start, low) - low, min(end, high) - low) for _, start, end, _ in spans]
    gap = 0.06
    shown = list(range(len(spans)))
    if sum(widths) + gap * (len(widths) - 1) > width:
        # Too many to name them all (micro-steps): those that fit over their own bracket.
        shown = [i for i in shown if widths[i] <= (seen[i][1] - seen[i][0]) * per_s]
    centres = [sum(seen[i]) / 2 * per_s for i in shown]
    for i, centre in zip(shown, spread(centres, [widths[i] for i in shown], width, gap), strict=True):
        # Two texts, not one of two lines: their baselines are the same over all phases, whatever letters hang down.
        for line, above_in in zip(texts[i], (LINE_IN + 0.035, 0.035), strict=True):
            y = base + tick + above_in / height
            x = low + centre / per_s
            axes.text(x, y, line, transform=place, ha="center", va="baseline", fontsize=TEXT_PT, gid="phase")


class Legend:
    """A legend outside all axes, in as many columns as fit the width of a picture; below it a caption."""

    def __init__(self, handles: Sequence[Artist], width_in: float, caption: str = "") -> None:
        self.handles = handles
        self.lines = textwrap.wrap(caption, int((width_in - 2 * EDGE_IN) / LETTER_IN))
        widest = max((text_width_in(str(handle.get_label()), TEXT_PT) for handle in handles), default=0.0) + 0.42
        rows = -(-len(handles) // max(1, int((width_in - 2 * EDGE_IN) / widest)))
        # As few columns as the rows allow: even rows instead of one short one.
        self.columns = -(-len(handles) // rows) if rows else 1
        self.height_in = rows * LINE_IN * 1.15 + 0.08 if rows else 0.0
        self.caption_in = LINE_IN * len(self.lines) + 0.06 if self.lines else 0.0
        self.height_in += self.caption_in

    def draw(self, picture: Picture, bottom_in: float = 0.0) -> None:
        """Draw it at the left edge, by default at the bottom of the picture."""
        if self.lines:
            base = bottom_in + self.caption_in
            look = {"color": "#555555", "linespacing": 1.2, "gid": "caption"}
            picture.text_at(EDGE_IN + 0.03, base, "\n".join(self.lines), **look)
        if not self.handles:
            return
        bottom_in += self.caption_in
        picture.legend(
            handles=list(self.handles), loc="lower left", ncols=self.columns, fontsize=TEXT_PT, frameon=False,
            bbox_to_anchor=(EDGE_IN / picture.width_in, bottom_in / picture.height_in), borderpad=0.1,
            borderaxespad=0.2, labelspacing=0.3, columnspacing=1.0, handlelength=2.0, handleheight=0.9,
            handletextpad=0.5,
        )  # fmt: skip


def swatch(colour: str, hatch: str, label: str) -> Patch:
    """A legend entry: a filled rectangle, hatched in black where the look is."""
    patch = Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="black" if hatch else colour, linewidth=0.0)
    patch.set_hatch(hatch)
    patch.set_hatch_linewidth(HATCH_LINE_PT)
    patch.set_label(label)
    return patch


def require_columns(frame: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """Complain about a table without rows or without a column that is drawn."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"the {name} table has no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    if frame.empty:
        raise ValueError(f"the {name} table has no rows: nothing to draw")


def steps(times: np.ndarray, values: np.ndarray, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of what holds each value from its time on, the last one until end_s; `values` may have columns."""
    ends = np.append(times[1:], max(end_s, float(times[-1])))
    return np.stack([times, ends], axis=1).ravel(), np.repeat(values, 2, axis=0)
