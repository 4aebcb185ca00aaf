"""What a page says of each result in words and tables. Nothing here is HTML: the template escapes and lays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from offsim.results.comparison import Comparison
from offsim.results.records import Peak
from offsim.results.result import PHASES, Result
from offsim.results.units import format_memory, format_percent, format_rate, format_time, plural
from offsim.results.verdict import Verdict
from offsim.views.wording import (
    asked_line,
    batch_line,
    flags_of,
    hardware_line,
    limited_by,
    model_line,
    named_peaks,
    options_of,
    peak_time,
    validated,
    verdict_line,
)

SHOWN_FROM = 0.0005
"""The share below which a cell of a table of shares stays empty."""


@dataclass(frozen=True)
class Cell:
    """A text; with a share (0 to 1) it is shaded or has a bar of that length."""

    text: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers; the first cell of a row names it."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True)
class Holding:
    """Who holds how much of a memory tier."""

    title: str
    note: str
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True)
class Facts:
    """All that is said of a result."""

    label: str
    set_up: dict[str, str]
    scenario: str
    """As a file that can be run again."""
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    """(name, value, what more there is to say)"""
    limits: Table | None = None
    busy: Table | None = None
    holdings: list[Holding] = field(default_factory=list)
    verdict: tuple[str, str] | None = None
    remedies: Table | None = None


def facts_of(label: str, result: Result) -> Facts:
    """What the page says of one result."""
    said: dict[str, Any] = {
        "label": label,
        "set_up": _set_up(result),
        "scenario": _file(result),
    }
    if result.verdict is not None:
        return Facts(
            **said,
            verdict=(verdict_line(result.verdict), asked_line(result.verdict)),
            holdings=[_in_the_way(result.verdict)],
            remedies=_remedies(result.verdict),
        )
    return Facts(
        **said,
        tiles=_tiles(result),
        limits=_limits(result),
        busy=_busy(result),
        holdings=[_holding(result, peak) for peak in named_peaks(result) if peak.occupants],
    )


def comparison_table(comparison: Comparison) -> Table:
    """A row per result: times, speed-up, memory, what limits it most."""
    longest = max((result.iteration_s for result in comparison if result.fits), default=1.0)
    rows: list[tuple[Cell, ...]] = []
    for label, result, speedup in zip(comparison.labels, comparison, comparison.speedups, strict=True):
        if result.verdict is not None:
            rows.append((Cell(label), Cell(verdict_line(result.verdict))))
            continue
        rows.append(
            (
                Cell(label),
                Cell(format_time(result.iteration_s), result.iteration_s / longest),
                Cell(f"{speedup:.2f}x"),
                *(Cell(format_time(result.durations.get(phase, 0.0))) for phase in PHASES),
                Cell(f"{result.tokens_per_s:,.0f}"),
                Cell(f"{result.tflops_per_gpu:.1f}"),
                *(Cell(format_memory(p.bytes), p.bytes / p.capacity_bytes) for p in named_peaks(result)),
                Cell(limited_by(result.limited_by, 1)),
            )
        )
    headers = ("", "iteration", "speed-up", *PHASES, "tokens/s", "TFLOP/s per GPU", "GPU peak", "host peak")
    return Table((*headers, "limited most by"), rows)


def differences(comparison: Comparison) -> Table | None:
    """What the scenarios differ in, a row per key; None where they are all the same."""
    settings = [_flat(result.scenario.model_dump(mode="json", exclude={"name"})) for result in comparison]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    rows = [
        (Cell(key), *(Cell(setting.get(key, "")) for setting in settings))
        for key in keys
        if len({setting.get(key) for setting in settings}) > 1
    ]
    return Table(("", *comparison.labels), rows) if rows else None


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": str(value)}
    return flat


def _set_up(result: Result) -> dict[str, str]:
    scenario = result.scenario
    options = options_of(scenario)
    return {
        "scheduler": scenario.scheduler.name + (f" ({options})" if options else ""),
        "hardware": hardware_line(result),
        "model": model_line(scenario, result.run.workload.parameters * scenario.training.tensor_parallel),
        "batch": batch_line(scenario),
        "validated": validated(result.run.profile),
    }


def _file(result: Result) -> str:
    return yaml.safe_dump(result.scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _tiles(result: Result) -> list[tuple[str, str, str]]:
    tiles = [
        ("iteration", format_time(result.iteration_s), f"limited by {limited_by(result.limited_by, 2)}"),
        ("tokens/s", f"{result.tokens_per_s:,.0f}", plural(result.gpus, "GPU")),
        ("TFLOP/s per GPU", f"{result.tflops_per_gpu:.1f}", "model FLOPs, without recomputation"),
    ]
    for peak in named_peaks(result):
        share = format_percent(peak.bytes / peak.capacity_bytes)
        note = f"{share} of {format_memory(peak.capacity_bytes)}"
        tiles.append((f"peak of {peak.tier}", format_memory(peak.bytes), note))
    return tiles


def _limits(result: Result) -> Table:
    """How long each phase takes and what its critical path went to."""
    times = {"iteration": result.iteration_s, **result.durations}
    spent = {"iteration": result.limited_by}
    for phase, seconds in result.limits_s.items():
        spent[phase] = {name: amount / (sum(seconds.values()) or 1.0) for name, amount in seconds.items()}
    rows = [
        (Cell("time"), *(Cell(format_time(seconds)) for seconds in times.values())),
        (Cell("of the iteration"), *(Cell(format_percent(s / result.iteration_s)) for s in times.values())),
    ]
    for name in dict.fromkeys(name for column in spent.values() for name in column):
        shares = [spent[column].get(name, 0.0) for column in times]
        if max(shares) >= SHOWN_FROM:
            rows.append((Cell(name), *map(_share, shares)))
    return Table(("", *times), rows)


def _share(share: float) -> Cell:
    return Cell(format_percent(share), share) if share >= SHOWN_FROM else Cell()


def _busy(result: Result) -> Table:
    """The share of each resource in use."""
    used = result.utilization
    phases = [str(name) for name in used.columns if name not in ("capacity", "unit")]
    rows = []
    for name, row in used.iterrows():
        capacity = format_rate(row["capacity"]) if row["unit"] == "B/s" else f"{row['capacity']:g} {row['unit']}"
        rows.append((Cell(str(name)), Cell(capacity), *(_share(float(row[phase])) for phase in phases)))
    return Table(("", "capacity", *phases), rows)


def _holding(result: Result, peak: Peak) -> Holding:
    size, capacity = format_memory(peak.bytes), format_memory(peak.capacity_bytes)
    note = f"{size} of {capacity}, {peak_time(result, peak)}"
    return Holding(f"Peak of {peak.tier}", note, _held(peak.occupants, peak.capacity_bytes))


def _in_the_way(verdict: Verdict) -> Holding:
    used, capacity = format_memory(verdict.used_bytes), format_memory(verdict.capacity_bytes)
    return Holding(
        f"Who held {verdict.tier} memory", f"{used} of {capacity}", _held(verdict.occupants, verdict.capacity_bytes)
    )


def _held(occupants: Mapping[str, float], capacity: float) -> list[tuple[Cell, ...]]:
    ordered = sorted(occupants.items(), key=lambda item: (-item[1], item[0]))
    return [
        (Cell(name), Cell(format_memory(held)), Cell(format_percent(held / capacity), held / capacity))
        for name, held in ordered
    ]


def _remedies(verdict: Verdict) -> Table:
    rows = [
        (Cell(flags_of(remedy.change)), Cell(format_time(remedy.iteration_s)), Cell(plural(remedy.gpus, "GPU")))
        for remedy in verdict.remedies
    ]
    return Table(("change", "iteration", "on"), rows)
