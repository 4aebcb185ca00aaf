"""The facts of a result or a comparison, as words, figures and tables: made here once, set by text and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from offsim.inputs.document import flat
from offsim.results.comparison import Comparison
from offsim.results.records import phase_columns
from offsim.results.result import Result
from offsim.results.units import format_capacity, format_memory, format_percent, format_time, plural
from offsim.results.verdict import Verdict
from offsim.schedulers.registry import scenario_scheduler
from offsim.views import wording
from offsim.views.wording import TierPeak, peaks_by_tier

if TYPE_CHECKING:
    from offsim.results.interval import PredictionInterval

Labelled = Sequence[tuple[str, Result]]
"""Results, each behind its label."""

SHOWN_FROM = 0.0005
"""The share below which a cell of a table of shares stays empty."""


@dataclass(frozen=True)
class Cell:
    """A text; with a share (0 to 1) it can be shaded or drawn as a bar."""

    text: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers; the first cell of a row names it."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    bar: int | None = None
    """The column whose shares text draws as bars."""
    words: tuple[int, ...] = ()
    """Columns of words beside the first; numbers are in the others."""


NOTHING = Table((), ())

RATES = ("tokens/s", "TFLOP/s per GPU", "MFU", "cost/1e9 tokens")
"""Columns of speed behind those of phases; the last only where there is a price."""


@dataclass(frozen=True)
class Holding:
    """The occupants of a memory tier at one instant."""

    title: str
    note: str
    occupants: Table


@dataclass(frozen=True)
class NoRoom:
    """Where memory ran out, what each tier lacks, who held it, and the changes with which the scenario fits."""

    line: str
    asked: str
    shortages: Table
    held: Holding
    title: str
    """Of the remedies."""
    remedies: Table
    others: tuple[str, ...]
    """What was tried besides, and the nearest machine."""


@dataclass(frozen=True)
class Facts:
    """The facts of one result. `no_room` stands in place of all that follows it where the scenario does not fit."""

    title: str
    set_up: dict[str, str]
    no_room: NoRoom | None = None
    headline: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Label -> texts, the most important first."""
    numbers: Sequence[tuple[str, str, str]] = ()
    """Headline numbers beside the time: name, value, a note."""
    phases: Table = NOTHING
    """The iteration, then its phases."""
    limits: Table = NOTHING
    resources: Table = NOTHING
    memory: tuple[Holding, ...] = ()
    notes: tuple[str, ...] = ()
    """How far to trust all of them."""


@dataclass(frozen=True)
class ComparisonFacts:
    """The facts of several results. The rows of `times` to `limited_most` are the results, in their order."""

    set_up: dict[str, str]
    """Of the first."""
    schedulers: tuple[str, ...]
    no_room: dict[int, tuple[str, str]]
    """Position -> where memory ran out, for what."""
    times: Table
    phases: Table
    memory: Table
    largest: Table
    """The largest occupant of each tier."""
    limited_most: Table
    limits: Table
    """A column per result that fits."""
    differences: Table | None
    """What the scenarios differ in, a row per key."""
    notes: tuple[str, ...]
    """How far to trust which of the results."""


def facts_of(
    result: Result,
    *,
    interval: PredictionInterval | None = None,
    trust: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    resources: bool = True,
) -> Facts:
    """The facts of one result; with `resources` also how busy each was.

    `interval` is that of the time, `trust` has further lines (label -> texts) on how sure it is.
    """
    set_up = set_up_of(result)
    if result.verdict is not None:
        return Facts(wording.drawing_title(result), set_up, _no_room(result.verdict))
    peaks = list(peaks_by_tier(result).values())
    return Facts(
        wording.drawing_title(result),
        set_up,
        headline={
            "iteration": (wording.speed_line(result, interval), wording.day_line(result)),
            **trust,
            "limited by": (wording.limited_by(result.limited_by),),
            "peak": tuple(f"{peak.name} {peak.held}" for peak in peaks),
        },
        numbers=_numbers(result, peaks),
        phases=_phases(result),
        limits=_limits(result),
        resources=_resources(result) if resources else NOTHING,
        memory=tuple(
            _holding(
                f"peak of {peak.name}",
                f"{peak.held}, {wording.peak_time(result, peak.most.time_s)}",
                peak.most.occupants,
                peak.most.capacity_bytes,
            )
            for peak in peaks
            if peak.most.occupants
        ),
        notes=(*result.notes, *result.measured_range.notes),
    )


def comparison_facts(comparison: Comparison[Result]) -> ComparisonFacts:
    """The facts of several results side by side."""
    longest = max((result.iteration_s for result in comparison if result.fits), default=1.0)
    every = list(zip(comparison.labels, comparison, strict=True))
    shown = [(label, result) for label, result in every if result.fits]
    phases = list(dict.fromkeys(phase for _, result in shown for phase in result.durations))
    priced = any(result.scenario.price_per_gpu_hour is not None for result in comparison)
    rates = RATES if priced else RATES[:-1]
    tiers = tiers_of(shown)
    return ComparisonFacts(
        set_up=set_up_of(comparison[0]),
        schedulers=tuple(_scheduler(result) for result in comparison),
        no_room={
            place: (wording.verdict_line(result.verdict), wording.asked_line(result.verdict))
            for place, result in enumerate(comparison)
            if result.verdict is not None
        },
        times=Table(
            ("", "iteration", "speed-up"),
            [
                (
                    Cell(label),
                    Cell(format_time(result.iteration_s), result.iteration_s / longest),
                    Cell(f"{speedup:.2f}x"),
                )
                if speedup is not None
                else (Cell(label), Cell("does not fit"), Cell())
                for (label, result), speedup in zip(every, comparison.speedups, strict=True)
            ],
            bar=1,
        ),
        phases=for_each(every, (*phases, *rates), lambda result: _speeds(result, phases)[: len(phases) + len(rates)]),
        memory=peaks_table(every, tiers),
        largest=replace(
            for_each(every, tuple(f"most of {tier}" for tier in tiers), lambda result: _largest(result, tiers)),
            words=tuple(range(1, len(tiers) + 1)),
        ),
        limited_most=for_each(
            every, ("limited most by",), lambda result: [Cell(wording.limited_by(result.limited_by, 1))]
        ),
        limits=_shares({label: result.limited_by for label, result in shown}),
        differences=_differences(comparison),
        notes=(
            *(f"{label}: {note}" for label, result in every for note in result.notes),
            *wording.outside_note(every),
        ),
    )


def set_up_of(result: Result) -> dict[str, str]:
    """What was simulated: label -> line."""
    scenario = result.scenario
    return {
        "scenario": result.name,
        "scheduler": _scheduler(result),
        "hardware": wording.hardware_line(result),
        "validated": wording.validated(result.run.profile),
        **wording.measured_lines(result),
        "model": wording.model_line(scenario, result.run.workload.parameters * scenario.training.tensor_parallel),
        "batch": wording.batch_line(scenario),
    }


def _scheduler(result: Result) -> str:
    return f"{result.scenario.scheduler.name} ({wording.options_of(result.scenario) or 'no options'})"


def _numbers(result: Result, peaks: Sequence[TierPeak]) -> list[tuple[str, str, str]]:
    numbers = [
        ("tokens/s", f"{result.tokens_per_s:,.0f}", plural(result.gpus, "GPU")),
        ("tokens a day", wording.tokens_a_day(result), "of iterations alone"),
        ("TFLOP/s per GPU", f"{result.tflops_per_gpu:.1f}", "model FLOPs, without recomputation"),
        ("MFU", format_percent(result.mfu), "of the datasheet's dense bf16 peak"),
    ]
    if (cost := result.cost_per_1e9_tokens) is not None:
        price = f"at {result.scenario.price_per_gpu_hour:g} per GPU hour"
        numbers.append(("cost per 1e9 tokens", wording.money(cost), price))
    for peak in peaks:
        share = f"{format_percent(peak.share)} of {format_memory(peak.most.capacity_bytes)}"
        numbers.append((f"peak of {peak.name}", format_memory(peak.most.bytes), share))
    return numbers


def _phases(result: Result) -> Table:
    columns = phase_columns(result.run)
    steps = Counter(name for name, of in zip(columns["phase"], columns["iteration"], strict=True) if of == 1)
    times = {"iteration": result.iteration_s} | {
        f"{phase} ({steps[phase]} micro-steps)" if steps[phase] > 1 else phase: seconds
        for phase, seconds in result.durations.items()
    }
    shares = {name: seconds / result.iteration_s for name, seconds in times.items()}
    rows = [
        (Cell(name), Cell(format_time(seconds)), Cell(format_percent(shares[name]), shares[name]))
        for name, seconds in times.items()
    ]
    return Table(("", "time", "share"), rows, bar=2)


def _limits(result: Result) -> Table:
    shares = {"iteration": result.limited_by}
    for phase, spent in result.limits_s.items():
        total = sum(spent.values()) or 1.0
        shares[phase] = {name: seconds / total for name, seconds in spent.items()}
    return _shares(shares, bar=1)


def _shares(shares: Mapping[str, Mapping[str, float]], bar: int | None = None) -> Table:
    names = dict.fromkeys(name for column in shares.values() for name in column)
    rows = {name: [column.get(name, 0.0) for column in shares.values()] for name in names}
    return Table(
        ("limited by", *shares),
        [(Cell(name), *map(_share, row)) for name, row in rows.items() if max(row) >= SHOWN_FROM],
        bar,
    )


def _share(share: float) -> Cell:
    return Cell(format_percent(share), share) if share >= SHOWN_FROM else Cell()


def _resources(result: Result) -> Table:
    used = dict(result.utilization_columns)
    names, capacities, units = (used.pop(column) for column in ("resource", "capacity", "unit"))
    rows = [
        (Cell(name), Cell(format_capacity(capacity, unit)), *map(_share, shares))
        for name, capacity, unit, *shares in zip(names, capacities, units, *used.values(), strict=True)
    ]
    return Table(("used", "capacity", *used), rows, bar=2)


def _holding(title: str, note: str, occupants: Mapping[str, float], capacity: float) -> Holding:
    ordered = sorted(occupants.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (Cell(name), Cell(format_memory(held)), Cell(format_percent(held / capacity), held / capacity))
        for name, held in ordered
    ]
    return Holding(title, note, Table(("", "held", "share"), rows, bar=2))


def _no_room(verdict: Verdict) -> NoRoom:
    remedies = [
        (Cell(wording.flags_of(remedy.change)), Cell(format_time(remedy.iteration_s)), Cell(plural(remedy.gpus, "GPU")))
        for remedy in verdict.remedies
    ]
    note = wording.held_line(verdict.used_bytes, verdict.capacity_bytes)
    shortages = [
        (
            Cell(short.tier),
            *(Cell(format_memory(n)) for n in (short.missing_bytes, short.needed_bytes, short.capacity_bytes)),
        )
        for short in verdict.shortages
    ]
    several = any(", " in remedy.change for remedy in verdict.remedies)
    return NoRoom(
        wording.verdict_line(verdict),
        wording.asked_line(verdict),
        Table(("too small", "missing", "needed", "there is"), shortages),
        _holding(f"occupants of {verdict.tier} memory", note, verdict.occupants, verdict.capacity_bytes),
        "changes with which it fits" if several else "single changes with which it fits",
        Table(("change", "iteration", "on"), remedies),
        _others(verdict),
    )


def _others(verdict: Verdict) -> tuple[str, ...]:
    machine = verdict.machine
    tried = (f"does not fit with {'; '.join(verdict.tried)}",) if verdict.tried else ()
    if machine is None:
        return (*tried, "fits unchanged on no machine of `offsim profiles`")
    name = machine.change.partition("=")[2]
    return (*tried, f"fits unchanged on {name}: {format_time(machine.iteration_s)} (--set {machine.change})")


def joined(*tables: Table) -> Table:
    """Tables whose rows are of the same things side by side."""
    rows = [
        (first[0], *(cell for row in (first, *others) for cell in row[1:]))
        for first, *others in zip(*(table.rows for table in tables), strict=True)
    ]
    return Table(("", *(header for table in tables for header in table.headers[1:])), rows)


def for_each(
    results: Labelled, headers: Sequence[str], cells: Callable[[Result], Sequence[Cell]], *, name: str = ""
) -> Table:
    """A row for each result, blank for those that do not fit; `name` says what they are called by."""
    rows = [(Cell(label), *(cells(result) if result.fits else [Cell()] * len(headers))) for label, result in results]
    return Table((name, *headers), rows)


def tiers_of(results: Labelled) -> list[str]:
    """The memory tiers that any of the results has."""
    return list(dict.fromkeys(tier for _, result in results for tier in peaks_by_tier(result)))


def peaks_table(results: Labelled, tiers: Sequence[str], *, name: str = "") -> Table:
    """The peak of each tier and its share of the capacity."""

    def cells(result: Result) -> list[Cell]:
        peaks = map(peaks_by_tier(result).get, tiers)
        return [Cell(format_memory(peak.most.bytes), peak.share) if peak else Cell() for peak in peaks]

    return for_each(results, [f"{tier} peak" for tier in tiers], cells, name=name)


def _speeds(result: Result, phases: Sequence[str]) -> list[Cell]:
    times = [format_time(result.durations[phase]) if phase in result.durations else "" for phase in phases]
    cost = result.cost_per_1e9_tokens
    rates = f"{result.tokens_per_s:,.0f}", f"{result.tflops_per_gpu:.1f}", format_percent(result.mfu)
    return [Cell(text) for text in (*times, *rates, "" if cost is None else wording.money(cost))]


def _largest(result: Result, tiers: Sequence[str]) -> list[Cell]:
    held = {tier: peak.most.occupants for tier, peak in peaks_by_tier(result).items()}
    return [Cell(max(held.get(tier, {}), key=lambda name: held[tier][name], default="")) for tier in tiers]


def _said(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(result: Result) -> dict[str, Any]:
    """The scenario, with what its scheduler's options are where it does not give them."""
    _, options = scenario_scheduler(result.scenario)
    dump = result.scenario.model_dump(mode="json", exclude={"name"})
    return dump | {"scheduler": {"name": result.scenario.scheduler.name, **options.model_dump(mode="json")}}


def _differences(comparison: Comparison[Result]) -> Table | None:
    settings = [{key: _said(value) for key, value in flat(_settings(result)).items()} for result in comparison]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    rows = [
        (Cell(key), *(Cell(setting.get(key, "\N{EN DASH}")) for setting in settings))
        for key in keys
        if len({setting.get(key) for setting in settings}) > 1
    ]
    return Table(("", *comparison.labels), rows) if rows else None
