"""Standard output that is full, closed or gone, a working directory that was deleted, and names of any length."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from offsim.cli import main

ROOT = Path(__file__).parents[2]
LONG = "a" * 100_000


def offsim(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell's command, in which $OFFSIM is the program."""
    python = f"{sys.executable} -m offsim"
    environment = os.environ | {"OFFSIM": python, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


FULL = ("> /dev/full", "cannot be written: No space left on device")
CLOSED = (">&-", "is closed, expected a file, a pipe or a terminal")
WRITES = ("run dos_20b_4xh100", "run dos_20b_4xh100 --json -", "--version")


@pytest.mark.parametrize(("arguments", "end"), [*product(WRITES, (FULL, CLOSED)), ("run --help", FULL)])
def test_standard_output_that_is_full_or_closed(arguments: str, end: tuple[str, str], tmp_path: Path) -> None:
    where, problem = end
    ended = offsim(f"$OFFSIM {arguments} {where}", tmp_path)
    assert (ended.returncode, ended.stderr) == (2, f"Error: standard output: {problem}\n")


@pytest.mark.parametrize(("stream", "arguments", "status"), [("/dev/full", "profiles a", 2), ("&-", "--version", 0)])
def test_nowhere_to_complain(stream: str, arguments: str, status: int, tmp_path: Path) -> None:
    ended = offsim(f"$OFFSIM {arguments} 2>{stream}", tmp_path)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_a_deleted_working_directory(tmp_path: Path) -> None:
    ended = offsim('mkdir gone && cd gone && rmdir "$PWD" && $OFFSIM run dos_20b_4xh100', tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.endswith(
        "Error: the working directory: No such file or directory, expected a folder that is there\n"
    )
    assert "Traceback" not in ended.stderr


def test_a_report_and_json_in_one_file(tmp_path: Path) -> None:
    ended = offsim("$OFFSIM run dos_20b_4xh100 --json /dev/stdout > both", tmp_path)
    assert ended.returncode == 0
    text = (tmp_path / "both").read_text()
    assert text.startswith("scenario   dos_20b_4xh100\n")
    assert text.endswith("}\n")
    assert os.listdir(tmp_path) == ["both"]


@pytest.mark.parametrize(
    "arguments",
    [
        [LONG],
        ["run", LONG],
        ["run", "x.yaml", f"--{LONG}"],
        ["tune", "dos_20b_4xh100", "--jobs", LONG],
        ["run", "dos_20b_4xh100", "--json", f"{LONG}/b"],
        ["run", "dos_20b_4xh100", "--plot", f"{LONG}.pn"],
        ["run", "dos_20b_4xh100", "--set", f"{LONG}=3"],
        ["run", "dos_20b_4xh100", "--scheduler", LONG],
        ["profiles", f"{LONG}.yaml"],
        ["trace", f"{LONG}.json"],
        ["validate", f"{LONG}.csv"],
    ],
)
def test_names_of_any_length_are_not_echoed_whole(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert len(capfd.readouterr().err) < 1800


@pytest.mark.parametrize(
    "arguments", [["run", "no\nsuch.yaml"], ["run", "dos_20b_4xh100", "--json", "no\r\n/such"], ["trace", "a\n.json"]]
)
def test_line_breaks_in_names_do_not_break_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "\\n" in message
