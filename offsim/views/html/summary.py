"""A result or a comparison as notebooks show it."""

from __future__ import annotations

from pathlib import Path

from offsim.views.facts import ComparisonFacts, Facts, joined
from offsim.views.templates import templates
from offsim.views.text import comparison_lines, result_lines

HERE = Path(__file__).parent


def result_html(facts: Facts) -> str:
    """The lines of the result's text, and below them what limits each phase."""
    head, *lines = result_lines(facts)
    return _render(head=head, lines=lines, tables=[facts.limits] if facts.limits.rows else [])


def comparison_html(facts: ComparisonFacts) -> str:
    """A row for each result, with why some do not fit, and their notes."""
    lines = [line for place, line in enumerate(comparison_lines(facts)) if place in facts.no_room]
    table = joined(facts.times, facts.phases, facts.memory, facts.limited_most)
    return _render(head="", lines=[*lines, *facts.notes], tables=[table])


def _render(**values: object) -> str:
    return templates(HERE, html=True).get_template("summary.html.jinja").render(**values)
