"""Record the predictions for all shipped scenarios and measured runs; say which numbers moved since, and how far.

python -m tests.record           # prints old -> new, rewrites tests/recorded.json
python -m tests.record --check   # prints only, exits with 1 where a number moved
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from offsim import simulate
from offsim.scenario import available_scenarios
from offsim.validation.folder import shipped_runs
from offsim.validation.names import run_names
from offsim.validation.predictions import Prediction, Validation, validate_runs
from offsim.views.console import PLAIN

RECORD = Path(__file__).with_name("recorded.json")
TOLERANCE = 1e-6
"""Relative; a number that differs by less has not moved."""
COLUMNS = ("fwd_ms", "bwd_ms", "step_ms", "peak_after_backward_gib")
"""The predictions recorded for a measured run, as its table names and measures them."""

Numbers = dict[str, float]
Record = dict[str, dict[str, Numbers]]
"""("scenarios" or "measured_runs") -> name -> number -> value."""


class Move(NamedTuple):
    """A number that is not what it was; None where it was not there before, or is not any more."""

    subject: str
    number: str
    old: float | None
    new: float | None

    @property
    def change(self) -> float:
        """New over old, less 1; infinite where there is nothing to divide."""
        return self.new / self.old - 1.0 if self.old and self.new is not None else math.inf


def recorded() -> Record:
    """The record as it was written."""
    record: Record = orjson.loads(RECORD.read_bytes())
    return record


def predicted() -> Record:
    """The record as it would be written now."""
    return {
        "scenarios": {name: scenario_numbers(name) for name in sorted(available_scenarios())},
        "measured_runs": run_numbers(validate_runs(shipped_runs())),
    }


def scenario_numbers(name: str) -> Numbers:
    """Times, peaks by tier, and bytes by activity of rank 0; peaks alone where the scenario does not fit."""
    result = simulate(name)
    numbers = {f"peak_bytes of {peak.tier}": float(peak.bytes) for peak in result.peaks}
    if not result.fits:
        return numbers
    times = {f"{phase}_s": seconds for phase, seconds in result.durations.items()}
    timeline = result.timeline
    own = timeline[(timeline["iteration"] == timeline["iteration"].max()) & (timeline["rank"] == 0)]
    moved = own.groupby("activity")["bytes"].sum()
    return {
        **times,
        "iteration_s": result.iteration_s,
        **numbers,
        **{f"bytes of {activity}": float(amount) for activity, amount in moved.items() if amount > 0},
    }


def run_numbers(validation: Validation) -> dict[str, Numbers]:
    """Name of a measured run -> what is predicted for it; nothing where it does not fit."""
    return {
        validation.names[prediction.run.line]: {c: prediction.values[c] for c in COLUMNS if prediction.fits}
        for prediction in validation.predictions
    }


def recorded_validation() -> Validation:
    """The shipped runs with the recorded predictions: what a simulation of them would say, without one."""
    table, runs = shipped_runs(), recorded()["measured_runs"]
    names = run_names(table.runs)
    return Validation(table, tuple(Prediction(run, runs[names[run.line]]) for run in table.runs))


def moves(old: Record, new: Record) -> list[Move]:
    """The numbers that moved, those that came or went first, then the largest change first."""
    found = [move for section in {**old, **new} for move in _moves(old.get(section, {}), new.get(section, {}))]
    return sorted(found, key=lambda move: -abs(move.change))


def _moves(old: dict[str, Numbers], new: dict[str, Numbers]) -> Iterator[Move]:
    for subject in {**old, **new}:
        before, after = old.get(subject, {}), new.get(subject, {})
        for number in {**before, **after}:
            a, b = before.get(number), after.get(number)
            if a is None or b is None or not math.isclose(a, b, rel_tol=TOLERANCE):
                yield Move(subject, number, a, b)


def difference(found: list[Move]) -> str:
    """The moves as a table."""
    if not found:
        return "nothing moved"
    rows = [(move.subject, move.number, _value(move.old), _value(move.new), _percent(move.change)) for move in found]
    return PLAIN.table(rows, ("scenario or run", "number", "old", "new", "change"), "llrrr")


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"


def _percent(change: float) -> str:
    return f"{100 * change:+.4g} %" if math.isfinite(change) else ""


def main(arguments: Sequence[str]) -> int:
    """Print what moved; write the record unless only asked to check."""
    old: Record = recorded() if RECORD.exists() else {}
    new = predicted()
    found = moves(old, new)
    print(difference(found))
    if "--check" in arguments:
        return int(bool(found))
    RECORD.write_bytes(orjson.dumps(new, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
