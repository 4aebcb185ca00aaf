"""A report on a table of runs in Markdown: errors, choices, and the worst disagreement activity by activity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote

from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.validation.accounts import MOST, PhaseAccount, explanations, phase_accounts
from offsim.validation.markdown import render
from offsim.validation.plot import plot_scatter
from offsim.validation.predictions import Validation
from offsim.validation.ranking import rankings
from offsim.validation.reasons import reasons
from offsim.validation.report import do_not_fit
from offsim.validation.score import Comparison, comparisons, scores_by, worst_runs
from offsim.validation.side_by_side import Pair, pairs, plot_accounts, plot_side_by_side, traced_iteration
from offsim.validation.traced import TracedIteration
from offsim.views.figure import Picture
from offsim.views.style import look_of

WORST = 10
NEAREST = 3
"""Explanations named in the text, those that change least."""


@dataclass(frozen=True, eq=False)
class Disagreement:
    """The run with the largest error of a phase, simulated again, and an account of each of its phases."""

    worst: Comparison
    result: Result
    accounts: Sequence[PhaseAccount]
    explanations: Mapping[tuple[str, str], float | None]
    traced: TracedIteration | None
    pairs: Mapping[str, Sequence[Pair]]
    """Phase -> measured beside simulated activities; empty without a trace."""

    def explains(self, account: PhaseAccount, kind: str) -> float | str:
        """The factor of a kind of activity that would explain the phase, "no", or "" where it was not measured."""
        return "" if account.measured_s is None else self.explanations[account.phase, kind] or "no"

    def nearest(self, account: PhaseAccount) -> list[tuple[str, float]]:
        """(kind, factor) of what would explain the phase alone, those that change least first."""
        alone = [
            (max(factor, 1 / factor), look_of(kind).label, kind, factor)
            for (phase, kind), factor in self.explanations.items()
            if phase == account.phase and factor is not None
        ]
        return [(kind, factor) for _, _, kind, factor in sorted(alone)[:NEAREST]]

    def picture(self) -> Picture:
        """The measured iteration above the simulated one, or without a trace its phases."""
        if self.traced is not None:
            return plot_side_by_side(self.traced, self.result, self.worst.name)
        return plot_accounts(self.result, self.accounts, self.worst.name)


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
    found = worst_disagreement(validation)
    pictures: dict[str, Picture] = {}
    if compared:
        pictures["scatter"] = plot_scatter(compared)
    if found is not None:
        pictures["timeline"] = found.picture()
    text = render(
        "report.md.jinja",
        validation=validation,
        do_not_fit=do_not_fit(validation),
        files={name: quote(PurePath(path).name) for name, path in files.items()},
        by_hardware=scores_by(compared, "hardware"),
        by_scheduler=scores_by(compared, "hardware", "scheduler"),
        rankings=rankings(validation.predictions),
        worst=[(worst, reasons(validation, worst)) for worst in worst_runs(compared, WORST)],
        found=found,
        most=f"{MOST:g}",
    )
    return text, pictures
