"""A report on a table of runs in Markdown: errors, choices, and the worst disagreement activity by activity."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote

from offsim.results.result import Result
from offsim.results.units import format_bytes, format_percent, format_time, plural
from offsim.simulation import simulate
from offsim.validation.accounts import MOST, Activities, PhaseAccount, explanations, phase_accounts
from offsim.validation.markdown import RANKING_QUESTION, error_table, markdown_table, ranking_list, worst_table
from offsim.validation.markdown_traced import HOW_TO_READ, differences, furthest, introduction
from offsim.validation.plot import plot_scatter
from offsim.validation.plot_accounts import plot_accounts
from offsim.validation.predictions import Validation
from offsim.validation.report import do_not_fit, signed_percent
from offsim.validation.score import Comparison, by_scheduler, comparisons, worst_runs
from offsim.validation.side_by_side import Pair, pairs, plot_side_by_side, traced_iteration
from offsim.validation.traced import TracedIteration
from offsim.views.figure import Picture
from offsim.views.style import look_of

WORST = 10
NEAREST = 3
"""Explanations named in the text, those that change least."""
Explanations = Mapping[tuple[str, str], float | None]

_READING = """\
An error is predicted over measured, less 1; `median`, `p90` and `worst` are of errors without their sign, `bias` is
the median with it. `sum` is forward + backward + step.
"""

_NO_TRACE = """\
No measured trace is at hand: the table has how long phases took, not when an activity ran. So the timeline is the
simulated one, with the measured phases drawn above it one after another. Where an activity differs from it cannot be
seen, only which differences would be enough.
"""

_CRITICAL_PATH = """\
The critical path is what a phase's end waited for, back to its beginning; time that an activity on it loses to others
counts to the resource that they share.
"""

_ACTIVITIES = """\
Of the activities by kind, `alone` is what they take together with nothing else running, `lost` what contention adds,
`on the path` how long the critical path runs through them; those that run in two phases count in both, each with its
part.
"""

_EXPLAINS = f"""\
`explains it` is how many times as long all activities of the kind would have
to take for the phase to take what was measured, everything else as it is: the iteration is simulated again until it
does. "no" means that nothing from 1/{MOST:g} to {MOST:g} times would do. Several small differences can do as much.
"""


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
    parts = [_introduction(validation)]
    if compared:
        pictures["scatter"] = plot_scatter(compared)
        parts += [
            f"## Errors\n\n{_READING}\n{error_table(compared)}",
            f"![Predicted over measured values]({_link(files['scatter'])})\n",
            f"## Errors by scheduler\n\n{error_table(compared, by_scheduler, ('hardware', 'scheduler'))}",
            f"## Choosing by prediction\n\n{RANKING_QUESTION}\n\n{ranking_list(validation)}",
        ]
    else:
        parts.append("Nothing to compare with: no measured values in the table.\n")
    if disagreement is not None:
        pictures["timeline"] = _timeline(disagreement)
        parts += [
            f"## The worst runs\n\n{worst_table(validation, compared, WORST)}",
            _disagreement(disagreement, _link(files["timeline"])),
        ]
    return "\n".join(parts), pictures


def _timeline(found: Disagreement) -> Picture:
    if found.traced is not None:
        return plot_side_by_side(found.traced, found.result, title=found.worst.name)
    return plot_accounts(found.result, found.accounts, title=found.worst.name)


def _link(path: str) -> str:
    return quote(PurePath(path).name)


def _introduction(validation: Validation) -> str:
    name, count = validation.table.path.name, len(validation.predictions)
    profile = f"{validation.profile}, whatever the table names" if validation.profile else "that the run names"
    lines = [
        f"# Predicted against measured: {name}",
        "",
        _wrapped(
            f"{plural(count, 'run')}, each simulated from its configuration columns alone. "
            f"Constants come from the hardware profile {profile}; nothing is fitted here."
        ),
    ]
    if missing := do_not_fit(validation):
        lines += ["", "Predicted not to fit in memory, so without times:", "", *(f"- {name}" for name in missing)]
    return "\n".join(lines) + "\n"


def _disagreement(found: Disagreement, picture: str) -> str:
    worst = found.worst
    steps = found.result.scenario.training.micro_steps
    parts = [
        "## The worst disagreement, activity by activity\n",
        _wrapped(
            f"The largest error of a phase: {worst.phase} of {worst.name}, measured {worst.measured:.0f} {worst.unit}, "
            f"predicted {worst.predicted:.0f} {worst.unit} ({signed_percent(worst.error)})."
            + (f" Forward and backward are summed over {steps} micro-steps." if steps > 1 else "")
        )
        + "\n",
    ]
    if found.traced is None:
        parts += [_NO_TRACE, f"![The simulated iteration below the measured phases]({picture})\n"]
        reading = [f"{_CRITICAL_PATH}{_ACTIVITIES}{_EXPLAINS}"]
    else:
        text = f"{introduction(found.traced, found.accounts)} {furthest(worst.phase, found.pairs[worst.phase])}"
        parts += [_wrapped(text) + "\n", f"![The measured iteration above the simulated one]({picture})\n"]
        reading = [HOW_TO_READ, f"{_CRITICAL_PATH}{_EXPLAINS}"]
    parts += [
        *(_wrapped(paragraph) + "\n" for paragraph in reading),
        *(_account(account, found.explanations, found.pairs.get(account.phase, ())) for account in found.accounts),
    ]
    return "\n".join(parts)


def _account(account: PhaseAccount, explained: Explanations, beside: Sequence[Pair]) -> str:
    path = [
        (name, format_time(seconds), format_percent(seconds / account.predicted_s))
        for name, seconds in account.path.items()
        if seconds > 0
    ]
    if beside:
        table = differences(beside, lambda kind: _explains(account, kind, explained))
    else:
        rows = [_activities(account, activities, explained) for activities in account.activities]
        headers = ("activity", "count", "bytes", "alone", "lost", "on the path", "explains it")
        table = markdown_table(rows, headers, "lrrrrrr")
    parts = [
        f"### {account.phase}\n",
        _wrapped(f"{_difference(account, explained)} {furthest(account.phase, beside)}") + "\n",
        markdown_table(path, ("critical path", "time", "share"), "lrr"),
        table,
    ]
    return "\n".join(parts)


def _explains(account: PhaseAccount, kind: str, explained: Explanations) -> str:
    if account.measured_s is None:
        return ""
    times = explained[account.phase, kind]
    return "no" if times is None else _times(times)


def _activities(account: PhaseAccount, activities: Activities, explained: Explanations) -> tuple[object, ...]:
    return (
        look_of(activities.kind).label,
        activities.count,
        format_bytes(activities.bytes) if activities.bytes else "",
        format_time(activities.alone_s),
        _time_or_nothing(activities.lost_s),
        _time_or_nothing(activities.path_s),
        _explains(account, activities.kind, explained),
    )


def _time_or_nothing(seconds: float) -> str:
    """What is below a nanosecond is rounding."""
    return format_time(seconds) if seconds >= 1e-9 else ""


def _times(factor: float) -> str:
    return f"{factor:.2f}x" if factor < 9.995 else f"{factor:.1f}x"


def _difference(account: PhaseAccount, explained: Explanations) -> str:
    predicted = format_time(account.predicted_s)
    if account.measured_s is None or account.missing_s is None:
        return f"Predicted {predicted}, not measured."
    error = account.predicted_s / account.measured_s - 1.0
    text = f"Measured {format_time(account.measured_s)}, predicted {predicted} ({signed_percent(error)}): "
    text += f"{format_time(abs(account.missing_s))} too {'little' if account.missing_s > 0 else 'much'}."
    alone = [
        (max(times, 1 / times), look_of(kind).label, times)
        for (phase, kind), times in explained.items()
        if phase == account.phase and times is not None
    ]
    if not alone:
        return text + " No kind of activity explains it alone."
    named = [f"{label} {_times(times)}" for _, label, times in sorted(alone)[:NEAREST]]
    return text + f" Alone would explain it: {', or '.join(named)}."


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
