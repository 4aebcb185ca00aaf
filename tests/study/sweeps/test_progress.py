"""How far a sweep is, on a terminal and elsewhere."""

import io
import sys

from offsim.cli import main, sweeps
from tests.study.small_sweeps import small_sweep, written


class Terminal(io.StringIO):
    def isatty(self):
        return True


def command(folder, axes=None):
    """A sweep of two schedulers, or over these axes in place of those."""
    sweep = small_sweep() | ({"axes": axes} if axes else {})
    return ["sweep", str(written(sweep, folder / "sweep.yaml")), "--out", str(folder / "out"), "--jobs", "1"]


def test_a_terminal_has_a_bar(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(command(tmp_path)) == 0
    assert "/6" in terminal.getvalue()


def test_elsewhere_there_are_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "SECONDS_BETWEEN_LINES", 0.0)
    assert main(command(tmp_path)) == 0
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[-1].startswith("6 of 6 points, ")
    assert output.out.startswith("6 points: 6 simulated\n")
    assert "most tokens per second" in output.out


def test_a_summary_of_a_single_point_that_is_known(tmp_path, capsys):
    single = command(tmp_path, {"training.activation_checkpointing": [True]})
    assert main(single) == 0
    assert capsys.readouterr().out.startswith("1 point: 1 simulated\n")
    assert main([*single, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("1 point: 0 simulated, 1 known already\n")


def test_flags_are_shown_as_files_write_them(tmp_path, capsys):
    assert main(command(tmp_path, {"training.activation_checkpointing": [True, False]})) == 0
    shown = capsys.readouterr().out.split()
    assert {"true", "false"} <= set(shown)
    assert not {"True", "False"} & set(shown)


def test_a_folder_without_a_name_is_refused(tmp_path, capsys):
    assert main([*command(tmp_path), "--out", ""]) == 2
    assert capsys.readouterr().err == "Error: --out '': found an empty name, expected a folder's\n"
