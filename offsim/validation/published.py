"""Published figures of schedules: rows of CSV files, each a shipped scenario with settings, and what was measured.

Unlike tables of runs, a row may be a ratio of two settings, a peak, an amount moved, or whether something fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.fields import parsed_number
from offsim.results.result import PHASES, Result
from offsim.results.simulate import simulate
from offsim.results.units import format_bytes, format_memory, format_percent, format_time
from offsim.scenario import load_scenario
from offsim.schedulers.registry import find_scheduler, with_scheduler
from offsim.validation.report import signed_percent
from offsim.validation.run_table import cells_in, numbered_rows
from offsim.views.console import PLAIN, Style

SHIPPED_FIGURES = Path(__file__).with_name("published")
REQUIRED = ("schedule", "quantity", "scenario", "measured", "source", "band")
"""Columns whose cells may not be empty."""
CACHED = 16
"""Simulations whose quantities are kept: rows about the same run stand together."""

FITS, SPEEDUP = "fits", "speedup"
QUANTITIES: dict[str, Callable[[Result], float]] = {
    "iteration_s": lambda result: result.iteration_s,
    "tokens_per_s": lambda result: result.tokens_per_s,
    "tflops": lambda result: result.tflops_per_gpu,
    "gpu_peak_bytes": lambda result: result.gpu_peak_bytes,
    "host_peak_bytes": lambda result: result.host_peak_bytes,
    "storage_read_bytes": lambda result: _moved(result, " read"),
    "storage_write_bytes": lambda result: _moved(result, " write"),
    "h2d_bytes": lambda result: _moved(result, "h2d"),
    "d2h_bytes": lambda result: _moved(result, "d2h"),
}
QUANTITIES |= {f"{phase}_s": lambda result, phase=phase: result.durations.get(phase, 0.0) for phase in PHASES}  # type: ignore[misc]


@dataclass(frozen=True)
class Figure:
    """A row. `low` and `high` are `measured` where the source gives one number."""

    schedule: str
    system: str
    quantity: str
    unit: str
    scenario: str
    settings: str
    baseline_settings: str
    measured: float
    low: float
    high: float
    evidence: str
    source: str
    band: float
    note: str
    where: str
    """File and line."""

    @property
    def quantity_text(self) -> str:
        """What was measured, in words."""
        words = {"tokens_per_s": "tokens/s", "tflops": "TFLOP/s", FITS: "fits", SPEEDUP: "speed-up"}
        name = self.quantity.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
        for short, long in (("gpu", "GPU"), ("h2d", "H2D"), ("d2h", "D2H")):
            name = name.replace(short, long)
        return words.get(self.quantity, name)

    @property
    def measured_text(self) -> str:
        """The measured value, or the range of values that the source gives."""
        if self.low == self.high:
            return self.shown(self.measured)
        return f"{self.shown(self.low)} to {self.shown(self.high)}"

    def shown(self, value: float | None) -> str:
        """A value in the words of the quantity."""
        if value is None:
            return "does not fit"
        if self.quantity == FITS:
            return "fits" if value else "does not fit"
        if self.quantity == SPEEDUP or self.baseline_settings:
            return f"{value:.2f}x"
        if self.quantity.endswith("_s") and self.quantity != "tokens_per_s":
            return format_time(value)
        if self.quantity.endswith("_peak_bytes"):
            return format_memory(value)
        if self.quantity.endswith("_bytes"):
            return format_bytes(value)
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


COLUMNS = tuple(field.name for field in fields(Figure) if field.name != "where")


@dataclass(frozen=True)
class Scored:
    """A figure beside its prediction; None where the scenario does not fit in memory."""

    figure: Figure
    predicted: float | None

    @property
    def error(self) -> float | None:
        """Relative to the measured value; None where nothing is predicted, and for yes or no."""
        if self.predicted is None or self.figure.quantity == FITS:
            return None
        return self.predicted / self.figure.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the prediction is no further from what was measured than the band allows."""
        figure, found = self.figure, self.predicted
        if found is None or figure.quantity == FITS:
            return found == figure.measured
        return figure.low * (1 - figure.band) <= found <= figure.high * (1 + figure.band)


def shipped_figures() -> list[Figure]:
    """The rows of the tables that come with offsim, by file name."""
    return [figure for path in sorted(SHIPPED_FIGURES.glob("*.csv")) for figure in read_figures(path)]


def read_figures(path: Path) -> list[Figure]:
    """The rows of a table; InputError with file, line and column for the first wrong cell."""
    rows = numbered_rows(path)
    first, header = next(rows, (1, []))
    for name in header:
        if name not in COLUMNS:
            raise InputError(f"unknown column '{name}'{suggestion(name, COLUMNS)}", f"{path}:{first}")
    if missing := [name for name in REQUIRED if name not in header]:
        raise InputError(f"found no column {', '.join(missing)}, expected {', '.join(COLUMNS)}", f"{path}:{first}")
    figures = [_figure(cells_in(path, line, header, row), f"{path}:{line}") for line, row in rows]
    if not figures:
        raise InputError("found no rows, expected one for each figure", str(path))
    return figures


def score(figures: Sequence[Figure]) -> list[Scored]:
    """Simulate what each figure is about."""
    return [Scored(figure, _predicted(figure)) for figure in figures]


def _figure(row: Mapping[str, str], where: str) -> Figure:
    cells: dict[str, Any] = {name: row.get(name, "").strip() for name in COLUMNS}
    for name in REQUIRED:
        if not cells[name]:
            raise InputError(f"{name}: found nothing, expected a value", where)
    known = (*QUANTITIES, SPEEDUP, FITS)
    if cells["quantity"] not in known:
        raise InputError(f"unknown quantity '{cells['quantity']}'{suggestion(cells['quantity'], known)}", where)
    if cells["quantity"] == SPEEDUP and not cells["baseline_settings"]:
        raise InputError("baseline_settings: found nothing, expected what the speed-up is over", where)
    _at(where, "schedule", lambda: find_scheduler(cells["schedule"]))
    _at(where, "scenario", lambda: load_scenario(cells["scenario"]))
    measured = _number(cells, "measured", where)
    if cells["quantity"] == FITS and measured not in (0, 1):
        raise InputError(f"measured: found {cells['measured']}, expected 1 (it fits) or 0", where)
    if cells["quantity"] != FITS and measured <= 0:
        raise InputError(f"measured: found {cells['measured']}, expected a number above 0", where)
    low, high = (_number(cells, name, where) if cells[name] else measured for name in ("low", "high"))
    if not low <= measured <= high:
        raise InputError(f"found {low:g} (low), {measured:g}, {high:g} (high), expected them in this order", where)
    band = _number(cells, "band", where)
    if not 0 <= band < 1:
        raise InputError(f"band: found {cells['band']}, expected a share from 0 to below 1, such as 0.25", where)
    numbers = {"measured": measured, "low": low, "high": high, "band": band}
    return Figure(**{**cells, **numbers}, where=where)


def _number(cells: dict[str, str], name: str, where: str) -> float:
    number = parsed_number(cells[name])
    if number is None or not math.isfinite(number):
        raise InputError(f"{name}: found '{cells[name]}', expected a number", where)
    return number


def _at(where: str, column: str, action: Callable[[], Any]) -> Any:
    """Do it; an error names the row and the column."""
    try:
        return action()
    except InputError as error:
        told = error.where.removeprefix("override ")
        raise InputError(f"{column}: {f'{told}: ' if told else ''}{error.problem}", where) from error


def _predicted(figure: Figure) -> float | None:
    def of(settings: str, column: str) -> dict[str, float]:
        found: dict[str, float] = _at(figure.where, column, lambda: quantities(figure.scenario, settings))
        return found

    own = of(figure.settings, "settings")
    if figure.quantity == FITS:
        return own[FITS]
    baseline = of(figure.baseline_settings, "baseline_settings") if figure.baseline_settings else None
    name = "iteration_s" if figure.quantity == SPEEDUP else figure.quantity
    if not own[FITS] or (baseline and not baseline[FITS]):
        return None
    if baseline is None:
        return own[name]
    return baseline[name] / own[name] if figure.quantity == SPEEDUP else own[name] / baseline[name]


@lru_cache(maxsize=CACHED)
def quantities(scenario: str, settings: str) -> dict[str, float]:
    """Every quantity of a shipped scenario with settings `section.key=value; ...`; where it does not fit, only that."""
    chosen, others = load_scenario(scenario), []
    for override in filter(None, map(str.strip, settings.split(";"))):
        key, _, name = (part.strip() for part in override.partition("="))
        if key in ("scheduler", "scheduler.name"):
            chosen = with_scheduler(chosen, name)
        else:
            others.append(override)
    result = simulate(load_scenario(chosen, others))
    if not result.fits:
        return {FITS: 0.0}
    return {FITS: 1.0} | {name: of(result) for name, of in QUANTITIES.items()}


def _moved(result: Result, kind: str) -> float:
    """Bytes that a rank moves in an iteration by operations of a kind; of storage by those that end in it."""
    run = result.run
    moved = (
        operation.bytes
        for operation in run.operations
        if operation.iteration >= run.first and operation.kind.endswith(kind)
    )
    return sum(moved) / run.iterations / run.layout.simulated


def inside_line(scored: Sequence[Scored]) -> str:
    """How many predictions are inside their bands, and the middle of the errors' sizes."""
    errors = [abs(one.error) for one in scored if one.error is not None]
    text = f"{sum(one.inside for one in scored)} of {len(scored)} predictions are inside their bands"
    return f"{text}; the median error is {format_percent(median(errors))}" if errors else text


def published_text(scored: Sequence[Scored], style: Style = PLAIN) -> str:
    """A table for terminals."""
    rows = [
        (
            one.figure.schedule,
            one.figure.quantity_text,
            one.figure.measured_text,
            one.figure.shown(one.predicted),
            "" if one.error is None else signed_percent(one.error),
            "" if one.inside else "wrong" if one.figure.quantity == FITS else f"outside {100 * one.figure.band:.0f} %",
        )
        for one in scored
    ]
    headers = ("schedule", "figure", "measured", "predicted", "error", "band")
    return f"{style.table(rows, headers, 'llrrrl')}\n\n{inside_line(scored)}"


def published_json(scored: Sequence[Scored]) -> dict[str, Any]:
    """Plain values."""
    rows = [
        {name: getattr(one.figure, name) for name in COLUMNS}
        | {"predicted": one.predicted, "error": one.error, "inside": one.inside}
        for one in scored
    ]
    return {"figures": rows, "inside": sum(one.inside for one in scored)}
