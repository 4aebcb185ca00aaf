"""Predictions of the shipped scenarios move only when somebody means them to: `python -m tests.record`."""

from __future__ import annotations

import pytest
from record import FOLDER, headlines, moved, summary

from offsim.cli import main
from offsim.scenario import available_scenarios


@pytest.mark.parametrize("name", available_scenarios())
def test_what_run_prints_is_what_is_recorded(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["run", name]) == 0
    printed = capsys.readouterr().out
    assert printed == (FOLDER / f"{name}.txt").read_text(encoding="utf-8"), "if that is meant: python -m tests.record"


def test_nothing_is_recorded_that_is_not_shipped() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == available_scenarios().keys()


@pytest.mark.parametrize("name", available_scenarios())
def test_lines_fit_a_terminal(name: str) -> None:
    assert max(map(len, summary(name).splitlines())) <= 80


def test_headlines_are_found_and_compared() -> None:
    new = summary("zero3_20b_4xh100")
    found = headlines(new)
    assert found.keys() == {
        *("forward", "backward", "update", "iteration", "tokens/s", "TFLOP/s per GPU"),
        *("limited by", "GPU peak", "host peak"),
    }
    assert headlines(summary("accumulation_7b_1xa100")).keys() == found.keys()
    assert moved(new, new) == []
    old = new.replace(found["iteration"], "2.00 s")
    ((name, before, after, change),) = [row for row in moved(old, new) if row[0] == "iteration"]
    assert (name, before, after) == ("iteration", "2.00 s", found["iteration"])
    assert change == f"{100 * (float(after.split()[0]) / 2 - 1):+.1f} %"
