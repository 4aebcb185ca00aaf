"""One measured iteration above the predicted one: what PCIe carried and the GPU memory taken, on a common axis."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from offsim.results.units import GIB
from offsim.validation.run_table import MEASURED_PHASES, SIMULATED_PHASES, TIMES, MeasuredRun
from offsim.validation.series import DIRECTIONS, WINDOW_S, Array, Iteration, SeriesComparison, link_rates, window_means
from offsim.views.figure import (
    PAPER_WIDTH_IN,
    PHASE_COLUMNS,
    SMALL_PT,
    Panel,
    Picture,
    panels_over_time,
    round_ticks,
    steps,
)
from offsim.views.style import KINDS, OCCUPANTS, lighter

_LINK_IN, _MEMORY_IN, _LEFT_IN = 1.25, 0.85, 0.72
_SIGNS = {"H2D": 1.0, "D2H": -1.0}


def median_iteration(comparison: SeriesComparison) -> Iteration:
    """The measured iteration of median length."""
    ordered = sorted(comparison.series.iterations, key=lambda iteration: (iteration.time_s[-1], iteration.number))
    return ordered[len(ordered) // 2]


def plot_iteration(comparison: SeriesComparison, run: MeasuredRun) -> Picture:
    """Draw measured above predicted payload (counters divided by their overhead) and GPU memory.

    Rates are means of the counters' window. Time begins with forward; between its phases the measured iteration has
    stretches of instrumentation.
    """
    iteration = median_iteration(comparison)
    begin = iteration.span("forward")[0]
    phases = comparison.result.phases
    predicted_phases = phases.assign(phase=phases["phase"].replace(MEASURED_PHASES))
    measured_phases = _measured_phases(iteration, begin, run)
    end = max(float(frame["end_s"].max()) for frame in (measured_phases, predicted_phases))
    measured = {name: rates / comparison.overhead for name, rates in iteration.rates.items()}
    edges = np.arange(0.0, end + WINDOW_S, WINDOW_S)
    predicted = {name: window_means(*link_rates(comparison.result, name), edges) for name in DIRECTIONS}
    starts = iteration.time_s - iteration.lengths_s - begin
    memory = comparison.result.memory[comparison.result.memory["tier"] == "GPU 0"]
    taken = memory["time_s"].to_numpy(dtype=float), memory["used_bytes"].to_numpy(dtype=float)
    rate_top = 1.15 * max(float(rates.max()) for rates in (*measured.values(), *predicted.values()))
    memory_top = 1.12 * max(float(iteration.memory.max()), float(taken[1].max()))
    shown = (
        (measured_phases, starts, measured, (starts, iteration.memory)),
        (predicted_phases, edges[:-1], predicted, taken),
    )
    titles = (
        f"measured (PCIe counters / {comparison.overhead:g}, memory that the driver reports)",
        "predicted (payload, memory that tensors hold)",
    )
    panels = [
        Panel(_LINK_IN, phases=measured_phases, title=titles[0]),
        Panel(_MEMORY_IN),
        Panel(_LINK_IN, phases=predicted_phases, title=titles[1]),
        Panel(_MEMORY_IN, "time ({unit})"),
    ]
    picture, drawn = panels_over_time(panels, 0.0, end, width_in=PAPER_WIDTH_IN, left_in=_LEFT_IN, title=None)
    for link, below, (spans, times, rates, held) in zip(drawn[::2], drawn[1::2], shown, strict=True):
        _draw_link(link, times, rates, rate_top)
        _draw_memory(below, *held, float(spans["end_s"].max()), memory_top)
    return picture


def _measured_phases(iteration: Iteration, begin: float, run: MeasuredRun) -> pd.DataFrame:
    """Spans by the samples; durations by the run's timers."""
    seconds = {phase: run.measured[column] / 1e3 for column, phase in TIMES.items()}
    rows = [
        (phase, start - begin, end - begin, seconds[simulated])
        for phase, simulated in SIMULATED_PHASES.items()
        for start, end in [iteration.span(phase)]
    ]
    return pd.DataFrame(rows, columns=[*PHASE_COLUMNS])


def _draw_link(axes: Axes, times: Array, rates: dict[str, Array], top: float) -> None:
    end = axes.get_xlim()[1]
    for name, sign in _SIGNS.items():
        x, y = steps(times, rates[name], end)
        colour = KINDS[name.lower()].colour
        axes.fill_between(x, sign * y, facecolor=colour, edgecolor=colour, linewidth=0.25, zorder=2, gid=name)
        place = axes.get_yaxis_transform()
        axes.text(
            0.996, sign * 0.97 * top, name, transform=place, ha="right", va="top" if sign > 0 else "bottom",
            fontsize=SMALL_PT, color=colour, fontweight="bold",
        )  # fmt: skip
    axes.axhline(0.0, color="black", linewidth=0.6, zorder=3)
    axes.set_ylim(-top, top)
    round_ticks(axes.yaxis, 5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value) / 1e9:.6g}")
    axes.set_ylabel("PCIe payload\n(GB/s)")


def _draw_memory(axes: Axes, times: Array, taken: Array, end_s: float, top: float) -> None:
    x, y = steps(times[times <= end_s], taken[times <= end_s] / GIB, end_s)
    colour = OCCUPANTS["parameters"][0]
    axes.fill_between(x, y, facecolor=lighter(colour, 0.75), edgecolor="none", zorder=1)
    axes.plot(x, y, color=colour, linewidth=0.8, zorder=2)
    axes.set_ylim(0.0, top / GIB)
    round_ticks(axes.yaxis, 4)
    axes.set_ylabel("GPU memory\n(GiB)")
