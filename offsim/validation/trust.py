"""How far predictions on shipped profiles were from measured runs, for the pages of results."""

from __future__ import annotations

from functools import cache

from offsim.results.units import plural
from offsim.validation.accuracy import held_out
from offsim.validation.folder import shipped_runs
from offsim.validation.predictions import Validation, predict
from offsim.validation.score import comparisons, scores
from offsim.views.facts import Cell, Table
from offsim.views.provenance import Scored

SCORED = ("forward", "backward", "step", "sum", "peak after backward")
LEFT_OUT = ("forward", "backward", "update", "sum")


@cache
def scored(hardware: str) -> Scored:
    """Score a profile on the measured runs that offsim comes with, and say which those are; empty without any."""
    table = shipped_runs()
    runs = [run for run in table.runs if run.cell("hardware") == hardware]
    if not runs:
        return Scored(left_out=_left_out(hardware))
    found = scores(comparisons(Validation(table, tuple(predict(run) for run in runs))))[hardware]
    rows = [
        (Cell(phase), Cell(str(one.n)), *(Cell(f"{100 * size:.1f} %") for size in (one.median, one.p90, one.worst)))
        for phase, one in found.items()
        if phase in SCORED
    ]
    models, schedulers = (sorted({run.cell(column) for run in runs}) for column in ("model", "scheduler"))
    which = f"The {plural(len(runs), 'measured run')} are of {', '.join(models)} under {', '.join(schedulers)}."
    errors = Table(("error of", "runs", "median", "90th percentile", "worst"), rows)
    return Scored(errors, which, _left_out(hardware))


def _left_out(hardware: str) -> Table | None:
    """Errors on models whose runs were left out of the fit, as the fit wrote them."""
    rows = [
        (Cell(model), Cell(str(of["sum"].n)), *(Cell(f"{of[p].median:.1f} / {of[p].p90:.1f} %") for p in LEFT_OUT))
        for model, of in held_out().get(hardware, {}).items()
    ]
    return Table(("left out", "runs", *("step" if p == "update" else p for p in LEFT_OUT)), rows) if rows else None
