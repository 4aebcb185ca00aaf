"""Predictions move only when somebody means them to: `python -m tests.record`."""

from __future__ import annotations

import copy

import pytest

from offsim import simulate
from offsim.cli.report import report
from offsim.scenario import available_scenarios
from tests.record import Move, Record, difference, moves, predicted, recorded


def test_predictions_are_as_recorded() -> None:
    found = moves(recorded(), predicted())
    assert not found, f"if that is meant, run python -m tests.record\n{difference(found)}"


def test_moved_numbers_are_listed_by_size() -> None:
    old: Record = {"scenarios": {"a": {"forward_s": 1.0, "update_s": 2.0, "gone": 1.0}, "b": {"forward_s": 4.0}}}
    new = copy.deepcopy(old)
    new["scenarios"]["a"] = {"forward_s": 1.0 + 5e-7, "update_s": 2.2}
    new["scenarios"]["b"] = {"forward_s": 3.0}
    found = moves(old, new)
    assert found == [
        Move("a", "gone", 1.0, None),
        Move("b", "forward_s", 4.0, 3.0),
        Move("a", "update_s", 2.0, 2.2),
    ]
    lines = [line.split() for line in difference(found).splitlines()]
    assert ["b", "forward_s", "4", "3", "-25", "%"] in lines
    assert ["a", "update_s", "2", "2.2", "+10", "%"] in lines
    assert moves(old, old) == []
    assert moves({}, new)[0] == Move("a", "forward_s", None, 1.0 + 5e-7)


@pytest.mark.parametrize("name", available_scenarios())
def test_summaries_fit_a_terminal(name: str) -> None:
    assert max(map(len, report(simulate(name)).splitlines())) <= 80
