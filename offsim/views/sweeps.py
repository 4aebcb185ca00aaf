"""Pictures of a table of many simulations, a row each: heat map of two axes, lines over one, time against memory.

Where further axes vary, the best row of each place is shown, and the picture says over what it is the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from offsim.views.figure import (
    EDGE_IN,
    LINE_IN,
    PAPER_WIDTH_IN,
    SMALL_PT,
    TEXT_PT,
    Picture,
    axes_at,
    legend_rows,
    new_picture,
    require_columns,
    text_width_in,
    title_at,
)
from offsim.views.style import ink_on

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4B2E83", "#8F5F5F")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
NOT_FITTING = "#EEEEEE"


class Quantity(NamedTuple):
    """How a column of the table is drawn."""

    label: str
    scale: float = 1.0
    more_is_better: bool = False


QUANTITIES = {
    "iteration_s": Quantity("iteration (s)"),
    "forward_s": Quantity("forward (s)"),
    "backward_s": Quantity("backward (s)"),
    "update_s": Quantity("update (s)"),
    "tokens_per_s": Quantity("tokens/s", more_is_better=True),
    "tflops_per_gpu": Quantity("TFLOP/s per GPU", more_is_better=True),
    "gpu_peak_bytes": Quantity("GPU memory (GiB)", 2.0**-30),
    "host_peak_bytes": Quantity("host memory (GiB)", 2.0**-30),
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
    """Draw a column over two axes of the table; the best place is framed, those where nothing fits are hatched."""
    best = _best(table, [x, y], value).dropna(subset=[x, y])
    columns, rows = _ordered(table[x]), _ordered(table[y])
    quantity = QUANTITIES[value]
    grid = np.full((len(rows), len(columns)), np.nan)
    for at_x, at_y, amount in zip(best[x], best[y], best[value], strict=True):
        grid[rows.index(at_y), columns.index(at_x)] = amount * quantity.scale
    left = max(text_width_in(_text(name), TEXT_PT) for name in rows) + 0.32
    cell_in = min(0.34, 4.0 / len(rows))
    header_in = (0.22 if title else 0.04) + LINE_IN * 1.4
    height = header_in + cell_in * len(rows) + 0.42
    bar_in = 0.62
    picture = new_picture(width_in, height)
    axes = axes_at(picture, left, 0.42, width_in - left - EDGE_IN - bar_in, cell_in * len(rows))
    _draw_cells(axes, grid, quantity)
    _name_ticks(axes, columns, rows)
    axes.set_xlabel(x, fontsize=TEXT_PT, labelpad=2)
    axes.set_ylabel(y, fontsize=TEXT_PT, labelpad=2)
    _subtitle(picture, f"{quantity.label}{_over(table, [x, y])}", left, height - header_in + LINE_IN * 1.3)
    _colour_bar(picture, grid, quantity, width_in - EDGE_IN - bar_in + 0.12, 0.42, cell_in * len(rows))
    if title:
        title_at(picture, title, EDGE_IN, height - 0.04)
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

    What does not have the axis, as a scheduler without the option, is a dashed level.
    """
    best = _best(table, [x, by], value)
    places = _ordered(table[x])
    positions = _positions(places)
    quantity = QUANTITIES[value]
    lines = _ordered(table[by])
    columns, legend_in = legend_rows([_text(name) for name in lines], width_in - 0.6)
    header_in = (0.22 if title else 0.04) + LINE_IN * 1.4
    picture = new_picture(width_in, height_in)
    bottom = 0.36 + legend_in
    axes = axes_at(picture, 0.55, bottom, width_in - 0.55 - EDGE_IN, height_in - bottom - header_in)
    for index, name in enumerate(lines):
        own = best[best[by] == name]
        for level in own.loc[own[x].isna(), value] * quantity.scale:
            axes.axhline(level, color=_look(index)["color"], linewidth=1.0, linestyle=(0, (4, 2)), gid=_text(name))
        own = own.dropna(subset=[x])
        at = [positions[places.index(place)] for place in own[x]]
        points = sorted(zip(at, own[value] * quantity.scale, strict=True))
        if points:
            axes.plot(*np.transpose(points), gid=_text(name), **_look(index))
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(FixedLocator(positions))
    axes.xaxis.set_major_formatter(FixedFormatter([_text(place) for place in places]))
    axes.xaxis.set_minor_locator(NullLocator())
    _finish(axes, x, quantity.label)
    _subtitle(picture, f"{quantity.label}{_over(table, [x, by])}", 0.55, height_in - header_in + LINE_IN * 1.3)
    _legend(picture, lines, columns)
    if title:
        title_at(picture, title, EDGE_IN, height_in - 0.04)
    return picture


def plot_front(
    table: pd.DataFrame,
    by: str = "scheduler",
    *,
    width_in: float = PAPER_WIDTH_IN,
    height_in: float = 3.2,
    title: str | None = None,
) -> Picture:
    """Draw iteration time against GPU memory, a mark per row, and the front that no row beats in both."""
    require_columns(table, "sweep", ["fits", by, "iteration_s", "gpu_peak_bytes"])
    fitting = table[table["fits"].eq(True)]
    names = _ordered(table[by])
    columns, legend_in = legend_rows([*(_text(name) for name in names), "the front"], width_in - 0.6)
    picture = new_picture(width_in, height_in)
    bottom, header_in = 0.36 + legend_in, 0.24 if title else 0.06
    axes = axes_at(picture, 0.55, bottom, width_in - 0.55 - EDGE_IN, height_in - bottom - header_in)
    memory = QUANTITIES["gpu_peak_bytes"]
    for index, name in enumerate(names):
        own = fitting[fitting[by] == name]
        look = _look(index) | {"linestyle": "none", "markersize": 3.6, "alpha": 0.75}
        axes.plot(own["gpu_peak_bytes"] * memory.scale, own["iteration_s"], gid=_text(name), **look)
    front = front_of(fitting)
    if len(front):
        axes.step(
            front["gpu_peak_bytes"] * memory.scale,
            front["iteration_s"],
            where="post",
            color="black",
            linewidth=0.8,
            zorder=1,
            gid="front",
        )
    axes.set_ylim(0, None)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    _finish(axes, memory.label, QUANTITIES["iteration_s"].label)
    front_line = Line2D([], [], color="black", linewidth=0.8, label="the front")
    _legend(picture, names, columns, front_line, linestyle="none")
    if title:
        title_at(picture, title, EDGE_IN, height_in - 0.04)
    return picture


def front_of(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other beats in both iteration time and GPU memory, those with the least memory first."""
    ordered = table.sort_values(["gpu_peak_bytes", "iteration_s"], kind="stable")
    fastest_before = ordered["iteration_s"].cummin().shift(fill_value=np.inf)
    return ordered[ordered["iteration_s"] < fastest_before]


def _best(table: pd.DataFrame, axes: Sequence[str], value: str) -> pd.DataFrame:
    """Of each place the best row that fits."""
    if value not in QUANTITIES:
        raise ValueError(f"cannot draw {value!r}; expected one of {', '.join(QUANTITIES)}")
    require_columns(table, "sweep", [*axes, value, "fits"])
    fitting = table[table["fits"].eq(True) & table[value].notna()]
    ordered = fitting.sort_values(value, ascending=not QUANTITIES[value].more_is_better, kind="stable")
    return ordered.drop_duplicates(list(axes))


def _over(table: pd.DataFrame, drawn: Sequence[str]) -> str:
    """What else varies: of it the best is shown."""
    axes = [name for name in table.attrs.get("axes", ()) if name not in drawn and name in table.columns]
    varied = [name for name in axes if table[name].astype(str).nunique() > 1]
    return f", the best over {', '.join(varied)}" if varied else ""


def _ordered(values: pd.Series[Any]) -> list[Any]:
    """The values that occur: numbers by size, factors such as x2 by theirs, others in the order first seen."""
    present = list(dict.fromkeys(values[values.notna()].tolist()))
    numbers = [_number(value) for value in present]
    if None in numbers:
        return present
    return [value for _, value in sorted(zip(numbers, present, strict=True), key=lambda pair: pair[0] or 0.0)]


def _number(value: Any) -> float | None:
    try:
        return float(value[1:] if isinstance(value, str) and value.startswith("x") else value)
    except (TypeError, ValueError):
        return None


def _positions(places: Sequence[Any]) -> list[float]:
    """Where to draw places of an axis: numbers by their value, others one beside the other."""
    numbers = [_number(place) for place in places]
    if any(number is None for number in numbers):
        return [float(index) for index in range(len(places))]
    return [number or 0.0 for number in numbers]


def _text(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.4g}".replace("e+0", "e")
    return str(value)


def _look(index: int) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
        "linewidth": 1.2,
    }


def _finish(axes: Axes, x_label: str, y_label: str) -> None:
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel(x_label, fontsize=TEXT_PT, labelpad=2)
    axes.set_ylabel(y_label, fontsize=TEXT_PT, labelpad=2)


def _subtitle(picture: Picture, text: str, left_in: float, top_in: float) -> None:
    width, height = (float(size) for size in picture.get_size_inches())
    picture.text(left_in / width, top_in / height, text, ha="left", va="top", fontsize=TEXT_PT, gid="subtitle")


def _legend(picture: Picture, names: Sequence[Any], columns: int, *more: Line2D, **look: Any) -> None:
    handles = [Line2D([], [], label=_text(name), **(_look(index) | look)) for index, name in enumerate(names)]
    picture.legend(
        handles=[*handles, *more],
        loc="lower center",
        ncols=columns,
        fontsize=TEXT_PT,
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _draw_cells(axes: Axes, grid: np.ndarray, quantity: Quantity) -> None:
    low, high = _range(grid)
    colours = colormaps["viridis_r" if not quantity.more_is_better else "viridis"]
    rows, columns = grid.shape
    digits = 2 if high < 9.995 else 1 if high < 99.95 else 0
    for row in range(rows):
        for column in range(columns):
            amount = grid[row, column]
            if np.isnan(amount):
                patch = Rectangle((column, row), 1, 1, facecolor=NOT_FITTING, edgecolor="white", hatch="////")
                patch.set_hatch_linewidth(0.3)
                axes.add_patch(patch)
                continue
            colour = colours((amount - low) / (high - low) if high > low else 0.5)[:3]
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6))
            if columns <= 16:
                text = f"{amount:,.{digits}f}"
                axes.text(
                    column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL_PT, color=ink_on(colour)
                )
    if not np.all(np.isnan(grid)):
        flat = np.nanargmax(grid) if quantity.more_is_better else np.nanargmin(grid)
        row, column = divmod(int(flat), columns)
        axes.add_patch(
            Rectangle((column, row), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8, zorder=3, gid="best")
        )
    axes.set(xlim=(0, columns), ylim=(0, rows))


def _range(grid: np.ndarray) -> tuple[float, float]:
    if np.all(np.isnan(grid)):
        return 0.0, 1.0
    return float(np.nanmin(grid)), float(np.nanmax(grid))


def _name_ticks(axes: Axes, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    every = -(-len(columns) // 16)
    axes.set_xticks([index + 0.5 for index in range(0, len(columns), every)], [_text(c) for c in columns[::every]])
    axes.set_yticks([index + 0.5 for index in range(len(rows))], [_text(row) for row in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colour_bar(
    picture: Picture, grid: np.ndarray, quantity: Quantity, left_in: float, bottom_in: float, height_in: float
) -> None:
    low, high = _range(grid)
    if not high > low:
        return
    axes = axes_at(picture, left_in, bottom_in, 0.1, height_in)
    colours = colormaps["viridis_r" if not quantity.more_is_better else "viridis"]
    gradient = np.linspace(0.0, 1.0, 128)[:, None]
    axes.imshow(gradient, aspect="auto", origin="lower", cmap=colours, extent=(0, 1, low, high))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(MaxNLocator(nbins=max(2, int(height_in / 0.35))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    for spine in axes.spines.values():
        spine.set_visible(False)
    if np.any(np.isnan(grid)):
        picture.legend(
            handles=[Patch(facecolor=NOT_FITTING, edgecolor="#888888", hatch="////", label="does not fit")],
            loc="lower right",
            fontsize=SMALL_PT,
            frameon=False,
            borderaxespad=0.2,
        )
