"""How far a sweep is, on a terminal and elsewhere."""

import io
import sys

import pytest

from offsim.cli import main, sweeps
from tests.study.small_sweeps import small_sweep, written


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
    assert lines[-1].startswith("6 of 6 points, ")
    assert output.out.startswith("6 points: 6 simulated\n")
    assert "most tokens per second" in output.out


def test_a_summary_of_a_single_point_that_is_known(tmp_path, capsys):
    sweep = small_sweep()
    sweep["axes"] = {"training.activation_checkpointing": [True]}
    command = ["sweep", str(written(sweep, tmp_path / "sweep.yaml")), "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("1 point: 1 simulated\n")
    assert main([*command, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("1 point: 0 simulated, 1 known already\n")


def test_flags_are_shown_as_files_write_them(tmp_path, capsys):
    sweep = small_sweep()
    sweep["axes"] = {"training.activation_checkpointing": [True, False]}
    path = written(sweep, tmp_path / "sweep.yaml")
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    shown = capsys.readouterr().out.split()
    assert {"true", "false"} <= set(shown)
    assert not {"True", "False"} & set(shown)


def test_a_folder_without_a_name_is_refused(command, capsys):
    assert main([*command, "--out", ""]) == 2
    assert capsys.readouterr().err == "Error: --out '': found an empty name, expected a folder's\n"
