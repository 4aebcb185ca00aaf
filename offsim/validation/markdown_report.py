"""A report on a table of runs in Markdown: errors, choices, and the worst disagreement activity by activity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from urllib.parse import quote

from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.results.units import format_bytes, format_percent, format_time
from offsim.validation.accounts import MOST, PhaseAccount, explanations, phase_accounts
from offsim.validation.markdown import (
    RANKING_QUESTION,
    error_table,
    format_factor,
    markdown_table,
    ranking_list,
    render,
    worst_table,
)
from offsim.validation.plot import plot_scatter
from offsim.validation.plot_accounts import plot_accounts
from offsim.validation.predictions import Validation
from offsim.validation.report import do_not_fit
from offsim.validation.score import Comparison, by_scheduler, comparisons, worst_runs
from offsim.validation.side_by_side import Pair, pairs, plot_side_by_side, traced_iteration
from offsim.validation.traced import TracedIteration
from offsim.views.figure import Picture
from offsim.views.style import look_of

WORST = 10
NEAREST = 3
"""Explanations named in the text, those that change least."""
Explanations = Mapping[tuple[str, str], float | None]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """The run with the largest error of a phase, simulated again, and an account of each of its phases."""

    worst: Comparison
    result: Result
    accounts: Sequence[PhaseAccount]
    explanations: Explanations
    traced: TracedIteration | None
    pairs: Mapping[str, Sequence[Pair]]
    """Phase -> measured beside simulated activities; empty without a trace."""


def worst_disagreement(validation: Validation) -> Disagreement | None:
    """Look into the run with the largest error of forward, backward or step; None where none was measured.

    Raises InputError for a trace of that run which cannot be read, or has no iteration.
    """
    found = worst_runs(comparisons(validation), 1)
    if not found:
        return None
    (worst,) = found
    run = next(run for run in validation.table.runs if run.line == worst.line)
    result = simulate(run.scenario)
    accounts = phase_accounts(result.run, run.measured)
    traced = traced_iteration(validation.table, run)
    paired = {} if traced is None else {account.phase: pairs(traced, account) for account in accounts}
    return Disagreement(worst, result, accounts, explanations(run.scenario, accounts), traced, paired)


def make_report(validation: Validation, files: Mapping[str, str]) -> tuple[str, dict[str, Picture]]:
    """The report's Markdown and the pictures that it shows, by name; `files` has their file names beside it.

    The pictures are `scatter` and `timeline`, as far as there is something measured to draw.
    """
    compared = comparisons(validation)
    disagreement = worst_disagreement(validation)
    pictures: dict[str, Picture] = {}
    if compared:
        pictures["scatter"] = plot_scatter(compared)
    if disagreement is not None:
        pictures["timeline"] = _timeline(disagreement)
    text = render(
        "report.md.jinja",
        validation=validation,
        do_not_fit=do_not_fit(validation),
        files={name: quote(PurePath(path).name) for name, path in files.items()},
        errors=error_table(compared) if compared else "",
        by_scheduler=error_table(compared, by_scheduler, ("hardware", "scheduler")),
        ranking_question=RANKING_QUESTION,
        ranked=ranking_list(validation),
        worst=worst_table(validation, compared, WORST),
        found=disagreement,
        **_accounts(disagreement),
    )
    return text, pictures


def _timeline(found: Disagreement) -> Picture:
    if found.traced is not None:
        return plot_side_by_side(found.traced, found.result, found.worst.name)
    return plot_accounts(found.result, found.accounts, found.worst.name)


def _accounts(found: Disagreement | None) -> dict[str, object]:
    """What the template shows of each phase."""
    if found is None:
        return {}
    return {
        "most": f"{MOST:g}",
        "nearest": partial(_nearest, found),
        "critical_path": _critical_path,
        "activities": partial(_activities, found),
        "differences": partial(_differences, found),
        "measured_kernels": _measured_kernels,
    }


def _critical_path(account: PhaseAccount) -> str:
    rows = [
        (name, format_time(seconds), format_percent(seconds / account.predicted_s))
        for name, seconds in account.path.items()
        if seconds > 0
    ]
    return markdown_table(rows, ("critical path", "time", "share"), "lrr")


def _activities(found: Disagreement, account: PhaseAccount) -> str:
    """The simulated activities of a phase by kind."""
    rows = [
        (
            look_of(activities.kind).label,
            activities.count,
            _bytes(activities.bytes),
            format_time(activities.alone_s),
            _time(activities.lost_s),
            _time(activities.path_s),
            _explains(found, account, activities.kind),
        )
        for activities in account.activities
    ]
    headers = ("activity", "count", "bytes", "alone", "lost", "on the path", "explains it")
    return markdown_table(rows, headers, "lrrrrrr")


def _differences(found: Disagreement, account: PhaseAccount, pairs: Sequence[Pair]) -> str:
    """The measured and the simulated activities of a phase by kind."""
    rows = []
    for pair in pairs:
        measured, simulated = pair.measured, pair.simulated
        counts = (measured.count if measured else 0, simulated.count if simulated else 0)
        nbytes = (measured.bytes if measured else 0.0, simulated.bytes if simulated else 0.0)
        rows.append(
            (
                look_of(pair.kind).label,
                format_time(pair.measured_s) if measured else "",
                format_time(pair.simulated_s) if simulated else "",
                f"{pair.measured_s / pair.simulated_s:.2f}x" if measured and simulated else "",
                _both([str(number or "") for number in counts]),
                _both([_bytes(number) for number in nbytes]),
                _time(simulated.path_s) if simulated else "",
                _explains(found, account, pair.kind) if simulated else "",
            )
        )
    compared = ("measured", "simulated", "ratio", "count (m / s)", "bytes (m / s)")
    return markdown_table(rows, ("activity", *compared, "on the path", "explains it"), "lrrrrrrr")


def _measured_kernels(pairs: Sequence[Pair]) -> list[str]:
    """The kernels of a phase by kind of activity and class, where there are any."""
    classes = [
        f"{look_of(pair.kind).label}: "
        + ", ".join(f"{name} {format_time(seconds)}" for name, seconds in pair.measured.kernels.items())
        for pair in pairs
        if pair.measured and pair.measured.kernels
    ]
    return ["; ".join(classes)] if classes else []


def _explains(found: Disagreement, account: PhaseAccount, kind: str) -> str:
    if account.measured_s is None:
        return ""
    factor = found.explanations[account.phase, kind]
    return "no" if factor is None else format_factor(factor)


def _nearest(found: Disagreement, account: PhaseAccount) -> list[tuple[str, float]]:
    """(kind, factor) of what would explain the phase alone, those that change least first."""
    alone = [
        (max(factor, 1 / factor), look_of(kind).label, kind, factor)
        for (phase, kind), factor in found.explanations.items()
        if phase == account.phase and factor is not None
    ]
    return [(kind, factor) for _, _, kind, factor in sorted(alone)[:NEAREST]]


def _bytes(count: float) -> str:
    return format_bytes(count) if count else ""


def _time(seconds: float) -> str:
    """Below a nanosecond it is rounding."""
    return format_time(seconds) if seconds >= 1e-9 else ""


def _both(cells: Sequence[str]) -> str:
    """Measured / simulated."""
    return " / ".join(cell or "-" for cell in cells) if any(cells) else ""
