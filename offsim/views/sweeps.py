"""Pictures of a table of many simulations, a row each: heat map of two axes, lines over one, time against memory.

Where further axes vary, the best row of each place is shown, and the picture says over what it is the best.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from offsim.results.units import GIB
from offsim.schedulers.registry import available_schedulers
from offsim.views.figure import (
    AXIS_IN,
    EDGE_IN,
    LINE_IN,
    PAPER_WIDTH_IN,
    SMALL_PT,
    TEXT_PT,
    Legend,
    Picture,
    log_ticks,
    require_columns,
    text_width_in,
)
from offsim.views.style import SERIES_COLOURS, SERIES_MARKERS, ink_on
from offsim.views.sweep_axes import column_of, label, ordered, positions, short, shown, varied

LEFT_IN = 0.55
NOT_FITTING = "#EEEEEE"
HATCH = "#999999"
MOST_NAMED = 4
MOST_LABELLED = 16
"""More columns of cells have no room for numbers or for all names."""
SPREAD = 5.0  # the ratio of times above which their axis is logarithmic
WIDER_PT = 3.0
Points = list[tuple[float, float]]
LEVEL: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.0, "marker": "none"}


class Quantity(NamedTuple):
    """How a column of the table is drawn."""

    label: str
    scale: float = 1.0
    more_is_better: bool = False

    @property
    def colours(self) -> Colormap:
        """From worst to best, dark to light."""
        return colormaps["viridis" if self.more_is_better else "viridis_r"]


QUANTITIES = {
    "iteration_s": Quantity("iteration (s)"),
    "forward_s": Quantity("forward (s)"),
    "backward_s": Quantity("backward (s)"),
    "update_s": Quantity("update (s)"),
    "tokens_per_s": Quantity("tokens/s", more_is_better=True),
    "tflops_per_gpu": Quantity("TFLOP/s per GPU", more_is_better=True),
    "gpu_peak_bytes": Quantity("GPU memory (GiB)", 1 / GIB),
    "host_peak_bytes": Quantity("host memory (GiB)", 1 / GIB),
}


def plot_heatmap(
    table: pd.DataFrame,
    x: str,
    y: str,
    value: str = "iteration_s",
    *,
    width_in: float = PAPER_WIDTH_IN,
    title: str | None = None,
) -> Picture:
    """Draw a column over two axes of the table: the best place is framed, those where nothing fits are hatched.

    A place that the table does not have is empty. An axis may be named by its last part, if only one ends in it.
    """
    x, y = column_of(table, x), column_of(table, y)
    best = _best(table, [x, y], value)
    placed = table.dropna(subset=[x, y])
    columns, rows = ordered(placed[x]), ordered(placed[y])
    if not columns:
        raise ValueError(f"no row of the sweep table has both {x} and {y}: nothing to draw")
    quantity = QUANTITIES[value]
    best = best.dropna(subset=[x, y])
    grid = best.pivot(index=y, columns=x, values=value).reindex(index=rows, columns=columns).to_numpy(dtype=float)
    grid = grid * quantity.scale
    outside = placed[placed["fits"].eq(False)]
    too_big = {(rows.index(at_y), columns.index(at_x)) for at_x, at_y in zip(outside[x], outside[y], strict=True)}
    hatched = {place for place in too_big if np.isnan(grid[place])}
    left = EDGE_IN + LINE_IN + max(text_width_in(shown(name), TEXT_PT) for name in rows) + 0.16
    grid_in = min(0.34, 4.0 / len(rows)) * len(rows)
    bottom, bar_in = 0.42, 0.62
    height = _header_in(title) + grid_in + bottom
    picture = Picture(width_in, height)
    axes = picture.axes_at(left, bottom, width_in - left - EDGE_IN - bar_in, grid_in)
    mesh = _draw_cells(axes, grid, hatched, quantity)
    _name_ticks(axes, columns, rows)
    axes.set_xlabel(label(table, x, width_in - left - 1.5))
    name = label(table, y, height - 0.2)
    # A name longer than the rows are high stays within the picture.
    half_in = text_width_in(name, TEXT_PT) / 2 + 0.06
    middle = max(min(bottom + grid_in / 2, height - half_in), half_in)
    picture.text_at(EDGE_IN, middle, name, rotation=90, va="center", gid="y label")
    _titles(picture, left, title, f"{quantity.label}{_over(placed, [x, y])}")
    _colour_bar(picture, mesh, width_in - EDGE_IN - bar_in + 0.12, bottom, grid_in)
    if hatched:
        patch = Patch(facecolor=NOT_FITTING, edgecolor=HATCH, hatch="////", linewidth=0.4, label="does not fit")
        picture.legend(handles=[patch], loc="lower right", fontsize=SMALL_PT, frameon=False, borderaxespad=0.2)
    return picture


def plot_lines(
    table: pd.DataFrame,
    x: str,
    value: str = "iteration_s",
    by: str = "scheduler",
    *,
    width_in: float = PAPER_WIDTH_IN,
    height_in: float = 3.0,
    title: str | None = None,
) -> Picture:
    """Draw a column over one axis of the table, a line per value of `by`; what does not fit is left out.

    What does not have the axis, as a scheduler without the option, is a dashed level. A line that others cover is
    wider, so that it shows beside them.
    """
    x, by = column_of(table, x), column_of(table, by)
    best = _best(table, [x, by], value)
    places = ordered(table[x])
    at = dict(zip(places, positions(places), strict=True))
    quantity = QUANTITIES[value]
    lines = ordered(table[by])
    looks = [_look(index) for index in _colours_of(lines)]
    handles = [Line2D([], [], label=shown(name), **look) for name, look in zip(lines, looks, strict=True)]
    legend = Legend(handles, width_in)
    picture = Picture(width_in, height_in)
    axes = _axes_above(picture, legend, _header_in(title))
    placed = best.dropna(subset=[x])
    points = [
        sorted(zip((at[place] for place in own[x]), own[value] * quantity.scale, strict=True))
        for own in (placed[placed[by] == name] for name in lines)
    ]
    for index, (name, look, handle) in enumerate(zip(lines, looks, handles, strict=True)):
        for level in best.loc[best[by].eq(name) & best[x].isna(), value] * quantity.scale:
            axes.axhline(level, **(look | LEVEL), gid=shown(name))
        if points[index]:
            covering = sum(_meet(points[index], later) for later in points[index + 1 :])
            wider = {size: look[size] + WIDER_PT * covering for size in ("linewidth", "markersize")}
            axes.plot(*np.transpose(points[index]), gid=shown(name), **(look | wider))
        else:
            handle.set(**LEVEL)
    axes.set_ylim(0, 1.08 * quantity.scale * best[value].max() if len(best) else 1.0)
    drawn = axes.get_xlim()
    axes.set_xticks(list(at.values()), [shown(place) for place in at])
    axes.set_xlim(drawn)
    _finish(axes, label(table, x, width_in - 1.0), quantity.label)
    _titles(picture, LEFT_IN, title, f"{quantity.label}{_over(table, [x, by])}")
    legend.draw(picture)
    return picture


def plot_front(
    table: pd.DataFrame,
    by: str = "scheduler",
    *,
    width_in: float = PAPER_WIDTH_IN,
    height_in: float = 3.2,
    title: str | None = None,
) -> Picture:
    """Draw iteration time against GPU memory, a mark per row, and the front that no row beats in both.

    Neither axis begins at zero; times that differ by more than SPREAD are on a logarithmic one.
    """
    by = column_of(table, by)
    require_columns(table, "sweep", ["fits", by, "iteration_s", "gpu_peak_bytes"])
    fitting = table[table["fits"].eq(True)]
    names = ordered(table[by])
    memory = QUANTITIES["gpu_peak_bytes"]
    look: dict[str, Any]
    looks = {name: _look(index) | {"linestyle": "none"} for index, name in zip(_colours_of(names), names, strict=True)}
    handles = [Line2D([], [], label=shown(name), **look) for name, look in looks.items()]
    front, look = front_of(fitting), {"color": "black", "linewidth": 0.8}
    if len(front):
        handles.append(Line2D([], [], label="the front", **look))
    legend = Legend(handles, width_in)
    picture = Picture(width_in, height_in)
    axes = _axes_above(picture, legend, 0.24 if title else 0.06)
    axes.step(front["gpu_peak_bytes"] * memory.scale, front["iteration_s"], where="post", gid="front", zorder=1, **look)
    for name, look in looks.items():
        own = fitting[fitting[by] == name]
        axes.plot(own["gpu_peak_bytes"] * memory.scale, own["iteration_s"], gid=shown(name), alpha=0.85, **look)
    axes.margins(0.04, 0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    _finish(axes, memory.label, QUANTITIES["iteration_s"].label)
    if fitting["iteration_s"].max() > SPREAD * fitting["iteration_s"].min():
        axes.set_yscale("log")
        log_ticks(axes.yaxis, (1.0, 2.0, 5.0))
    legend.draw(picture)
    picture.title_at(EDGE_IN, height_in - 0.04, title)
    return picture


def front_of(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other beats in both iteration time and GPU memory, those with the least memory first."""
    ranked = table.sort_values(["gpu_peak_bytes", "iteration_s"], kind="stable")
    fastest_before = ranked["iteration_s"].cummin().shift(fill_value=np.inf)
    return ranked[ranked["iteration_s"] < fastest_before]


def _best(table: pd.DataFrame, axes: Sequence[str], value: str) -> pd.DataFrame:
    """Of each place the best row that fits."""
    if value not in QUANTITIES:
        raise ValueError(f"cannot draw {value!r}; expected one of {', '.join(QUANTITIES)}")
    require_columns(table, "sweep", [*axes, value, "fits"])
    fitting = table[table["fits"].eq(True) & table[value].notna()]
    ranked = fitting.sort_values(value, ascending=not QUANTITIES[value].more_is_better, kind="stable")
    return ranked.drop_duplicates(list(axes))


def _over(table: pd.DataFrame, drawn: Sequence[str]) -> str:
    """What else varies: of it the best is shown."""
    names = [short(name) for name in varied(table, drawn)]
    if len(names) > MOST_NAMED:
        names = [*names[: MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    return f", the best over {', '.join(names)}" if names else ""


def _colours_of(names: Sequence[Any]) -> list[int]:
    """The place of each name's colour: a scheduler has the same in all pictures."""
    known = available_schedulers()
    return [known.index(name) for name in names] if set(names) <= set(known) else list(range(len(names)))


def _meet(points: Points, others: Points) -> bool:
    """Whether lines have a point in common, to what can be seen."""
    heights = dict(others)
    return any(x in heights and np.isclose(y, heights[x], rtol=5e-3) for x, y in points)


def _look(index: int) -> dict[str, Any]:
    return {
        "color": SERIES_COLOURS[index % len(SERIES_COLOURS)],
        "marker": SERIES_MARKERS[index % len(SERIES_MARKERS)],
        "markersize": 4.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "linewidth": 1.2,
    }


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _header_in(title: str | None) -> float:
    return (0.22 if title else 0.04) + LINE_IN * 1.4


def _axes_above(picture: Picture, legend: Legend, header_in: float) -> Axes:
    """Axes that fill the picture above the legend and below the header."""
    bottom = AXIS_IN + legend.height_in
    height_in = picture.height_in - bottom - header_in
    return picture.axes_at(LEFT_IN, bottom, picture.width_in - LEFT_IN - EDGE_IN, height_in)


def _titles(picture: Picture, left_in: float, title: str | None, subtitle: str) -> None:
    picture.title_at(EDGE_IN, picture.height_in - 0.04, title)
    picture.text_at(left_in, picture.height_in - _header_in(title) + LINE_IN * 1.3, subtitle, gid="subtitle")


def _draw_cells(axes: Axes, grid: np.ndarray, hatched: Collection[tuple[int, int]], quantity: Quantity) -> QuadMesh:
    columns = grid.shape[1]
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid), cmap=quantity.colours, edgecolor="white", linewidth=0.6)
    for row, column in hatched:
        patch = Rectangle((column, row), 1, 1, facecolor=NOT_FITTING, edgecolor="white", hatch="////")
        patch.set_hatchcolor(HATCH)
        patch.set_hatch_linewidth(0.4)
        axes.add_patch(patch)
    filled = np.argwhere(~np.isnan(grid))
    if not len(filled):
        return mesh
    digits = 2 if np.nanmax(grid) < 9.995 else 1 if np.nanmax(grid) < 99.95 else 0
    for row, column in filled if columns <= MOST_LABELLED else ():
        red, green, blue, _ = mesh.to_rgba(grid[row, column])
        text, ink = f"{grid[row, column]:,.{digits}f}", ink_on((red, green, blue))
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL_PT, color=ink)
    flat = np.nanargmax(grid) if quantity.more_is_better else np.nanargmin(grid)
    row, column = divmod(int(flat), columns)
    best = Rectangle((column, row), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8, zorder=3, gid="best")
    axes.add_patch(best)
    return mesh


def _name_ticks(axes: Axes, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    every = -(-len(columns) // MOST_LABELLED)
    axes.set_xticks([index + 0.5 for index in range(0, len(columns), every)], [shown(c) for c in columns[::every]])
    axes.set_yticks([index + 0.5 for index in range(len(rows))], [shown(row) for row in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colour_bar(picture: Picture, mesh: QuadMesh, left_in: float, bottom_in: float, height_in: float) -> None:
    low, high = mesh.get_clim()
    if low is None or high is None or not high > low:
        return
    axes = picture.axes_at(left_in, bottom_in, 0.1, height_in)
    bar = picture.colorbar(mesh, cax=axes, format="{x:,.4g}")
    bar.locator = MaxNLocator(nbins=max(2, int(height_in / 0.35)))
    bar.outline.set_visible(False)
