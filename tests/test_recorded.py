"""Predictions move only when somebody means them to: `python -m tests.record`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from offsim import simulate
from offsim.scenario import available_scenarios
from offsim.validation.accuracy import ACCURACY, held_out
from offsim.validation.page import accuracy_file, with_accuracy
from offsim.validation.published import score, shipped_figures
from offsim.views.facts import facts_of
from offsim.views.text import result_text
from tests import record
from tests.record import Move, Record, difference, moves, predicted, recorded, recorded_validation

ROOT = Path(__file__).parents[1]


def test_predictions_are_as_recorded() -> None:
    found = moves(recorded(), predicted())
    assert not found, f"if that is meant, run python -m tests.record\n{difference(found)}"


def test_the_readme_has_the_errors_of_the_recorded_predictions() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = with_accuracy(text, recorded_validation(), held_out(), score(shipped_figures()))
    assert written == text, "run python -m offsim.validation.page"


def test_the_package_has_the_errors_of_the_recorded_predictions() -> None:
    found = ACCURACY.read_text(encoding="utf-8")
    assert found == accuracy_file(recorded_validation()), "run python -m offsim.validation.page"


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


def test_the_command_checks_and_rewrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now: Record = {"scenarios": {"a": {"forward_s": 1.0}}, "measured_runs": {}}
    monkeypatch.setattr(record, "RECORD", tmp_path / "recorded.json")
    monkeypatch.setattr(record, "predicted", lambda: now)
    assert record.main([]) == 0
    assert recorded() == now
    now["scenarios"]["a"]["forward_s"] = 1.5
    capsys.readouterr()
    assert record.main(["--check"]) == 1
    assert "+50 %" in capsys.readouterr().out
    assert recorded() != now
    assert record.main([]) == 0
    assert record.main(["--check"]) == 0
    assert capsys.readouterr().out.endswith("nothing moved\n")


@pytest.mark.parametrize("name", available_scenarios())
def test_summaries_fit_a_terminal(name: str) -> None:
    assert max(map(len, result_text(facts_of(simulate(name))).splitlines())) <= 80
