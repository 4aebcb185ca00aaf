"""How far a sweep is, on a terminal and elsewhere."""

import io
import sys

import pytest

from offsim.cli import main, sweeps
from tests.study.sweeps import small_sweep, written


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def command(tmp_path):
    return [
        "sweep",
        str(written(small_sweep(), tmp_path / "sweep.yaml")),
        "--out",
        str(tmp_path / "out"),
        "--jobs",
        "1",
    ]


def test_a_terminal_has_a_bar(command, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(command) == 0
    assert "/6" in terminal.getvalue()


def test_elsewhere_there_are_lines(command, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "SECONDS_BETWEEN_LINES", 0.0)
    assert main(command) == 0
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("1 of 6 points, ")
    assert output.out.startswith("6 points: 6 simulated\n")
    assert "most tokens per second" in output.out
