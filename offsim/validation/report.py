"""Predicted against measured as a JSON document and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from offsim.results.units import plural
from offsim.validation.predictions import Prediction, Validation
from offsim.validation.ranking import Ranking, rankings
from offsim.validation.run_table import MEASURED
from offsim.validation.score import Score, comparisons, scores, worst_runs
from offsim.views.console import PLAIN, Style

WORST = 5


def to_json(validation: Validation) -> dict[str, Any]:
    """Plain values: each run's cells with what was measured and predicted beside them, and a summary.

    A run's `measured` has the cells of predicted columns that are not blank, `predicted` has all of those columns.
    """
    runs = [_run(validation, prediction) for prediction in validation.predictions]
    return {"runs": runs, "summary": _summary(validation)}


def _run(validation: Validation, prediction: Prediction) -> dict[str, Any]:
    run, verdict = prediction.run, prediction.verdict
    document: dict[str, Any] = {column: cell for column, cell in run.cells.items() if column not in MEASURED}
    predicted = {
        column: prediction.values[column] for column in validation.predicted_columns if column in prediction.values
    }
    document |= {"fits": prediction.fits, "measured": dict(run.measured), "predicted": predicted}
    if verdict is not None:
        document["verdict"] = {"tier": verdict.tier, "occupants": verdict.occupants, "text": str(verdict)}
    return document


def _summary(validation: Validation) -> dict[str, Any]:
    compared = comparisons(validation)
    return {
        "runs": len(validation.predictions),
        "profile": validation.profile or None,
        "do_not_fit": do_not_fit(validation),
        "errors": {
            hardware: {phase: _score(score) for phase, score in phases.items()}
            for hardware, phases in scores(compared).items()
        },
        "worst_runs": [
            {
                "run": worst.name,
                "phase": worst.phase,
                "unit": worst.unit,
                "measured": worst.measured,
                "predicted": worst.predicted,
                "error_percent": 100 * worst.error,
            }
            for worst in worst_runs(compared, WORST)
        ],
        **{f"best_{what}": _ranked(found) for what, found in rankings(validation.predictions).items()},
    }


def do_not_fit(validation: Validation) -> list[str]:
    """Names of the runs that are predicted not to fit in memory."""
    return [validation.names[prediction.run.line] for prediction in validation.predictions if not prediction.fits]


def _score(score: Score) -> dict[str, Any]:
    shares = {f"{name}_percent": 100 * getattr(score, name) for name in ("median", "p90", "worst", "bias")}
    return {"n": score.n, **shares, "worst_run": score.worst_run}


def _ranked(found: Sequence[Ranking]) -> dict[str, Any]:
    return {
        "series": len(found),
        "agree": sum(ranking.agrees for ranking in found),
        "pairs": sum(ranking.pairs[0] for ranking in found),
        "pairs_in_order": sum(ranking.pairs[1] for ranking in found),
        "largest_loss_percent": 100 * max((ranking.loss for ranking in found), default=0.0),
        "disagree": [
            {
                "series": ranking.name,
                "measured_best": ranking.best,
                "predicted_best": ranking.predicted_best,
                "loss_percent": 100 * ranking.loss,
            }
            for ranking in found
            if not ranking.agrees
        ],
    }


def format_validation(validation: Validation, style: Style = PLAIN) -> str:
    """A text for terminals: errors per hardware and phase, the worst runs, whether the best choices are predicted."""
    compared = comparisons(validation)
    runs = validation.predictions
    parts = [f"{plural(len(runs), 'run')} of {validation.table.path.name}, predicted from their configuration alone"]
    if validation.profile:
        parts[0] += f", on {validation.profile}"
    if missing := do_not_fit(validation):
        parts.append("predicted not to fit in memory:\n" + "\n".join(f"  {name}" for name in missing))
    if compared:
        headers = ("hardware", "phase", "runs", "median", "p90", "worst", "bias")
        parts.append(style.table(_score_rows(scores(compared)), headers, "llrrrrr"))
        worst = [
            (w.name, w.phase, f"{w.measured:.0f} {w.unit}", f"{w.predicted:.0f} {w.unit}", signed_percent(w.error))
            for w in worst_runs(compared, WORST)
        ]
        table = style.table(worst, ("run", "phase", "measured", "predicted", "error"), "llrrr")
        parts.append(f"largest errors of a phase, {WORST} runs:\n{table}")
    else:
        parts.append("nothing to compare with: no measured values in the table")
    parts += ["\n  ".join(_ranking_lines(what, found)) for what, found in rankings(runs).items() if found]
    return "\n\n".join(parts)


def signed_percent(fraction: float, digits: int = 1) -> str:
    """A fraction as "+1.2 %", "-0.3 %", "0.0 %"."""
    text = f"{100 * fraction:+.{digits}f} %"
    return text if text.strip("+-0. %") else text[1:]


def _score_rows(scored: Mapping[str, Mapping[str, Score]]) -> list[tuple[object, ...]]:
    """Cells of a table of errors in percent; the hardware stands where its rows begin."""
    rows: list[tuple[object, ...]] = []
    for hardware, phases in scored.items():
        for position, (phase, score) in enumerate(phases.items()):
            shown = [f"{100 * value:.1f} %" for value in (score.median, score.p90, score.worst)]
            rows.append(("" if position else hardware, phase, score.n, *shown, signed_percent(score.bias)))
    return rows


def _ranking_lines(what: str, found: Sequence[Ranking]) -> list[str]:
    """Sentences: how often the best choice is predicted, what following the prediction costs, where it fails."""
    agree = sum(ranking.agrees for ranking in found)
    pairs, in_order = (sum(counts) for counts in zip(*(ranking.pairs for ranking in found), strict=True))
    losses = [100 * ranking.loss for ranking in found]
    return [
        f"best {what}: predicted in {agree} of {len(found)} series, {in_order} of {pairs} pairs in order",
        f"following the prediction costs {median(losses):.1f} % in the median, {max(losses):.1f} % at most",
        *(
            f"{wrong.name}: {wrong.best} is best, {wrong.predicted_best} is predicted, {signed_percent(wrong.loss)}"
            for wrong in found
            if not wrong.agrees
        ),
    ]
