"""All schedules on one scenario as text: times, what limits them, memory, and why the others are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offsim.programs.schedule import LEGEND
from offsim.results.result import Result
from offsim.results.survey import Entry, Survey
from offsim.results.units import format_percent, format_time
from offsim.views.console import PLAIN, Style, labelled, wrapped
from offsim.views.facts import Cell, Labelled, Table, for_each, peaks_table, set_up_of, tiers_of
from offsim.views.text import table_text, with_percents
from offsim.views.wording import explained, limited_by, money, outside_note, tokens_a_day

SET_UP = ("scenario", "hardware", "validated", "model", "batch")


def survey_text(survey: Survey, style: Style = PLAIN) -> str:
    """All of it; tables have the fastest schedule first."""
    set_up = set_up_of(next(entry.result for entry in survey.entries if entry.result is not None))
    blocks = ["\n".join(labelled(name, set_up[name]) for name in SET_UP)]
    results = [(entry.schedule, entry.result) for entry in survey.fitting if entry.result is not None]
    if results:
        blocks += [table_text(table, style) for table in (_times(results), _limits(survey.fitting))]
        said = dict.fromkeys(explained(entry.exactness) for entry in survey.fitting if entry.exactness in LEGEND)
        blocks += ["\n".join(wrapped(line, "", "  ") for line in said)] if said else []
        memory = with_percents(peaks_table(results, tiers_of(results), name="schedule"))
        blocks += [table_text(table, style) for table in (memory, _yields(results))]
        notes = [f"{schedule}: {note}" for schedule, result in results for note in result.notes]
        notes += outside_note(results)
        blocks += ["\n".join(style.alarm(wrapped(note, "", "   ")) for note in notes)] if notes else []
    for title, entries in {"do not fit": survey.too_large, "do not apply": survey.inapplicable}.items():
        lines = [wrapped(f"{entry.schedule}: {entry.reason}", "  ", "    ") for entry in entries]
        blocks += ["\n".join([style.heading(title), *lines])] if lines else []
    return "\n\n".join(blocks)


def _times(results: Labelled) -> Table:
    phases = list(dict.fromkeys(phase for _, result in results for phase in result.durations))
    longest = max(result.iteration_s for _, result in results)

    def cells(result: Result) -> list[Cell]:
        times = [format_time(result.durations.get(phase, 0.0)) for phase in phases]
        whole = Cell(format_time(result.iteration_s), result.iteration_s / longest)
        return [whole, *map(Cell, (*times, f"{result.tokens_per_s:,.0f}"))]

    return replace(for_each(results, ("iteration", *phases, "tokens/s"), cells, name="schedule"), bar=1)


def _limits(fitting: Sequence[Entry]) -> Table:
    rows = [
        (
            Cell(entry.schedule),
            Cell(limited_by(entry.result.limited_by, 1)),
            Cell(entry.exactness),
            *([Cell(", ".join(entry.changes))] if any(entry.changes for entry in fitting) else []),
        )
        for entry in fitting
        if entry.result is not None
    ]
    headers = ("schedule", "limited most by", "result", "scenario with")[: len(rows[0])]
    return Table(headers, rows, words=tuple(range(1, len(headers))))


def _yields(results: Labelled) -> Table:
    """What the GPUs make of their time, and what that costs."""

    def cells(result: Result) -> list[Cell]:
        costs = [money(cost) for cost in (result.cost_per_iteration, result.cost_per_1e9_tokens) if cost is not None]
        return [*map(Cell, (tokens_a_day(result), format_percent(result.mfu), *costs))]

    headers = ("tokens a day", "MFU", "cost an iteration", "cost/1e9 tokens")
    return for_each(results, headers[: len(cells(results[0][1]))], cells, name="schedule")
