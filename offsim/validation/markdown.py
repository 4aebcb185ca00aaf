"""Errors, worst runs and agreement of choices in Markdown, for the validation page and for reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import jinja2

from offsim.validation.predictions import Validation
from offsim.validation.ranking import rankings
from offsim.validation.reasons import reasons
from offsim.validation.report import SCORE_HEADERS, WORST_HEADERS, ranking_lines, score_rows, signed_percent, worst_rows
from offsim.validation.score import Comparison, Group, by_hardware, worst_runs
from offsim.views.style import look_of
from offsim.views.templates import templates

FOLDER = Path(__file__).parent / "templates"
RANKING_QUESTION = "Does what is predicted fastest turn out to be fastest?"


def render(template: str, **values: object) -> str:
    """One of the templates in Markdown."""
    return _templates().get_template(template).render(**values)


def markdown_table(rows: Iterable[Sequence[object]], headers: Sequence[str], align: str) -> str:
    """A table; `align` has "l" or "r" for each column."""
    return render("table.md.jinja", rows=rows, headers=headers, align=align)


@cache
def _templates() -> jinja2.Environment:
    environment = templates(FOLDER, html=False)
    environment.filters |= {
        "label": lambda kind: look_of(kind).label,
        "signed": signed_percent,
        "times": format_factor,
    }
    return environment


def format_factor(factor: float) -> str:
    """How many times as long: "1.20x"."""
    return f"{factor:.2f}x" if factor < 9.995 else f"{factor:.1f}x"


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
    """How often the best scheduler and the best of each option are predicted, a point each."""
    ranked = rankings(validation.predictions)
    lines = {what: ranking_lines(what, found) if found else [] for what, found in ranked.items()}
    return render("rankings.md.jinja", rankings=lines)
