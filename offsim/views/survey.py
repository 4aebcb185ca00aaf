"""All schedules on one scenario as text: times, what limits them, memory, and why the others are missing."""

from __future__ import annotations

from collections.abc import Sequence

from offsim.programs.schedule import LEGEND
from offsim.results.result import Result
from offsim.results.survey import Entry, Survey
from offsim.results.units import engineering, format_memory, format_percent, format_time
from offsim.views.console import PLAIN, Style, labelled, wrapped
from offsim.views.facts import Cell, Table, set_up_of
from offsim.views.text import table_text
from offsim.views.wording import explained, limited_by, money, outside_note, peaks_by_tier

SET_UP = ("scenario", "hardware", "validated", "model", "batch")
LIMITS = 1
"""How many limits a row of text names."""


def survey_text(survey: Survey, style: Style = PLAIN) -> str:
    """All of it; tables have the fastest schedule first."""
    fitting = survey.fitting
    blocks = [_set_up(next(entry.result for entry in survey.entries if entry.result is not None))]
    if fitting:
        blocks += [table_text(_times(fitting), style), table_text(_limits(fitting), style)]
        said = dict.fromkeys(explained(entry.exactness) for entry in fitting if entry.exactness in LEGEND)
        blocks += ["\n".join(wrapped(line, "", "  ") for line in said)] if said else []
        blocks += [table_text(_memory(fitting), style), table_text(_yields(fitting), style)]
        results = {entry.schedule: result for entry, result in _results(fitting)}
        notes = [f"{schedule}: {note}" for schedule, result in results.items() for note in result.notes]
        notes += outside_note(results)
        blocks += ["\n".join(style.alarm(wrapped(note, "", "   ")) for note in notes)] if notes else []
    if survey.too_large:
        blocks.append(_listed("do not fit", survey.too_large, style))
    if survey.inapplicable:
        blocks.append(_listed("do not apply", survey.inapplicable, style))
    return "\n\n".join(blocks)


def changes_of(entry: Entry) -> str:
    """What of the scenario the schedule needed otherwise, in words."""
    return ", ".join(entry.changes)


def _set_up(result: Result) -> str:
    found = set_up_of(result)
    return "\n".join(labelled(name, found[name]) for name in SET_UP)


def _results(entries: Sequence[Entry]) -> list[tuple[Entry, Result]]:
    return [(entry, entry.result) for entry in entries if entry.result is not None]


def _times(fitting: Sequence[Entry]) -> Table:
    results = _results(fitting)
    phases = list(dict.fromkeys(phase for _, result in results for phase in result.durations))
    longest = max(result.iteration_s for _, result in results)
    rows = [
        (
            Cell(entry.schedule),
            Cell(format_time(result.iteration_s), result.iteration_s / longest),
            *(Cell(format_time(result.durations.get(phase, 0.0))) for phase in phases),
            Cell(f"{result.tokens_per_s:,.0f}"),
        )
        for entry, result in results
    ]
    return Table(("schedule", "iteration", *phases, "tokens/s"), rows, bar=1)


def _limits(fitting: Sequence[Entry]) -> Table:
    rows = [
        (
            Cell(entry.schedule),
            Cell(limited_by(result.limited_by, LIMITS)),
            Cell(entry.exactness),
            *([Cell(changes_of(entry))] if any(entry.changes for entry in fitting) else []),
        )
        for entry, result in _results(fitting)
    ]
    headers = ("schedule", "limited most by", "result", "scenario with")[: len(rows[0])]
    return Table(headers, rows, words=tuple(range(1, len(headers))))


def _memory(fitting: Sequence[Entry]) -> Table:
    peaks = [{peak.tier: peak for peak in peaks_by_tier(result)} for _, result in _results(fitting)]
    tiers = list(dict.fromkeys(tier for row in peaks for tier in row))
    rows = [
        (
            Cell(entry.schedule),
            *(
                Cell(f"{format_memory(row[tier].most.bytes)} ({format_percent(row[tier].share)})")
                if tier in row
                else Cell()
                for tier in tiers
            ),
        )
        for entry, row in zip(fitting, peaks, strict=True)
    ]
    return Table(("schedule", *(f"{tier} peak" for tier in tiers)), rows)


def _yields(fitting: Sequence[Entry]) -> Table:
    """What the GPUs make of their time, and what that costs."""
    rows = []
    for entry, result in _results(fitting):
        costs = [money(cost) for cost in (result.cost_per_iteration, result.cost_per_1e9_tokens) if cost is not None]
        day = engineering(float(f"{result.tokens_per_day:.3g}"))
        rows.append(tuple(map(Cell, (entry.schedule, day, format_percent(result.mfu), *costs))))
    headers = ("schedule", "tokens a day", "MFU", "cost an iteration", "cost/1e9 tokens")
    return Table(headers[: len(rows[0])], rows)


def _listed(title: str, entries: Sequence[Entry], style: Style) -> str:
    lines = [wrapped(f"{entry.schedule}: {entry.reason}", "  ", "    ") for entry in entries]
    return "\n".join([style.heading(title), *lines])
