"""Errors, worst runs and agreement of choices in Markdown, for the validation page and for reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from offsim.validation.predictions import Validation
from offsim.validation.ranking import scheduler_rankings, stride_rankings
from offsim.validation.reasons import reasons
from offsim.validation.report import SCORE_HEADERS, WORST_HEADERS, ranking_lines, score_rows, worst_rows
from offsim.validation.score import Comparison, Group, by_hardware, worst_runs

RANKING_QUESTION = "Does what is predicted fastest turn out to be fastest?"


def markdown_table(rows: Iterable[Sequence[object]], headers: Sequence[str], align: str) -> str:
    """A table; `align` has "l" or "r" for each column."""
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (headers, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]]) + "\n"


def _cell(value: object) -> str:
    """A bar would begin another cell, a line's end another row."""
    return " ".join(str(value).splitlines()).replace("|", "\\|")


def error_table(
    compared: Sequence[Comparison],
    group: Callable[[Comparison], Group] = by_hardware,
    names: Sequence[str] = ("hardware",),
) -> str:
    """Errors per group and phase; `names` are the headers of what names a group."""
    headers = (*names, *SCORE_HEADERS[1:])
    return markdown_table(score_rows(compared, group), headers, "l" * len(names) + "lrrrrr")


def worst_table(validation: Validation, compared: Sequence[Comparison], count: int) -> str:
    """The runs with the largest errors of a phase, and what the table itself tells of each."""
    worst = [
        (*row, reasons(validation, comparison) or "nothing")
        for row, comparison in zip(worst_rows(compared, count), worst_runs(compared, count), strict=True)
    ]
    return markdown_table(worst, (*WORST_HEADERS, "what the table tells of it"), "llrrrl")


def ranking_list(validation: Validation) -> str:
    """How often the best scheduler and the best stride are predicted, a point each."""
    lines = []
    for what, rankings in (
        ("scheduler", scheduler_rankings(validation.predictions)),
        ("stride", stride_rankings(validation.predictions)),
    ):
        if not rankings:
            lines.append(f"- Best {what}: no measured runs differ in it alone.")
            continue
        head, cost, *wrong = ranking_lines(what, rankings)  # these begin with a name
        lines += [f"- {head.capitalize()}.", f"  {cost.capitalize()}.", *(f"  {line}." for line in wrong)]
    return "\n".join(lines) + "\n"
