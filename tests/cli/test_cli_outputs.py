"""What commands write as JSON and CSV is what docs/outputs.md says, and what they show fits 80 columns."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from offsim.cli import main
from offsim.cli.outputs import csv_text
from tests.calibration.synthetic_logs import whole_log
from tests.calibration.synthetic_runs import runs_table
from tests.calibration.trace_files import write_kineto
from tests.small_scenarios import scenario
from tests.study.small_sweeps import small_sweep, written

PAGE = Path(__file__).parents[2] / "docs" / "outputs.md"
WILD = {"axes", "columns", "more"}
COMMANDS = {
    "offsim run": "run small.yaml",
    "offsim compare": "compare small.yaml",
    "offsim compare --all": "compare small.yaml --all",
    "offsim tune": "tune small.yaml --jobs 1 --budget 4",
    "offsim sweep": "sweep sweep.yaml --out swept --jobs 1 --resume",
    "offsim sensitivity": "sensitivity small.yaml",
    "offsim optimum": "optimum small.yaml --set training.subgroup_size=100000",
    "offsim profiles": "profiles",
    "offsim profiles NAME": "profiles jlse-4xh100-nvme",
    "offsim profiles parts": "profiles parts",
    "offsim scenarios": "scenarios",
    "offsim schedulers": "schedulers",
    "offsim schedulers NAME": "schedulers zero_infinity",
    "offsim trace": "trace trace.json",
    "offsim replay": "replay trace.json --scale h2d=2",
    "offsim validate": "validate runs.csv",
    "offsim validate --published": "validate --published published.csv",
    "offsim logs": "logs train.log --out logged.csv",
    "offsim calibrate": "calibrate runs.csv --base jlse-4xh100 --out mine.yaml",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "small.yaml").write_text(yaml.safe_dump(scenario()))
    written(small_sweep(), folder / "sweep.yaml")
    write_kineto(folder / "trace.json")
    (folder / "train.log").write_text("\n".join(whole_log()) + "\n")
    runs_table(folder / "runs.csv")
    (folder / "published.csv").write_text(
        "schedule,system,quantity,unit,scenario,settings,baseline_settings,measured,low,high,evidence,source,band,note\n"
        "zero3_offload,DeepSpeed,iteration_s,s,zero3_20b_4xh100,,,7,6,8,table,a paper,0.25,\n"
    )
    return folder


def documented(heading: str, kind: str) -> list[str] | None:
    """The columns or keys that a section lists; None where it has no such table."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section, heading
    table = re.search(rf"^\| {kind} \|.*?\n\|[-|]+\|\n((?:\|.*\n)+)", section[1], re.MULTILINE)
    if table is None:
        return None
    names = [row.split("|")[1].strip() for row in table[1].splitlines()]
    assert all(re.fullmatch(r"`[\w.]+`|\*\w+\*", name) for name in names)
    figures = documented("figures", "column") if "*figures*" in names else []
    return [plain for name in names for plain in (figures or [] if name == "*figures*" else [name.strip("`*")])]


def assert_documented(heading: str, kind: str, found: list[str]) -> None:
    said = documented(heading, kind)
    assert said is not None
    assert set(said) - WILD <= set(found)
    assert set(found) <= set(said) or WILD & set(said)


def test_every_command_has_its_section() -> None:
    assert re.findall(r"^## (offsim .*)$", PAGE.read_text(), re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("heading", COMMANDS)
def test_json_and_csv_are_as_documented(
    heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    arguments = shlex.split(COMMANDS[heading])
    csv_too = documented(heading, "column") is not None
    assert main([*arguments, "--json", "-", *(["--csv", "table.csv"] if csv_too else [])]) == 0
    printed = capsys.readouterr()
    assert_documented(heading, "key", list(json.loads(printed.out)))
    if csv_too:
        rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text()), strict=True))
        assert rows
        assert_documented(heading, "column", list(rows[0]))
        assert "wrote table.csv" in printed.err.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS.values(),
        "run mlp_offload_70b_4xh100 --interval",
        "compare dos_20b_4xh100",
        "compare mlp_offload_70b_4xh100 --all",
        "tune dos_20b_4xh100 --jobs 1 --budget 8",
        "validate",
        "sweep wide.yaml --out wide --jobs 1 --resume",
    ],
)
def test_what_is_shown_fits_80_columns(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    axes = {f"hardware_changes__link__{name}_bytes_per_s": ["x1", "x2"] for name in ("d2h", "duplex")}
    axes |= {"scheduler__gpu_subgroups": ["first", "last"], "training__activation_checkpointing": [True, False]}
    written(small_sweep(**axes), folder / "wide.yaml")
    assert main(shlex.split(command)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert [line for line in lines if len(line) > 80] == []


def test_cells_of_csv() -> None:
    rows = [{"a": 1.5, "b": {"c": True, "d": None}, "e": [1, "x"]}, {"a": 'say "x", y', "f": 0}]
    assert csv_text(rows) == 'a,b.c,b.d,e,f\n1.5,true,,"[1,""x""]",\n"say ""x"", y",,,,0\n'


@pytest.mark.parametrize("command", ["run small.yaml", "profiles"])
def test_only_one_of_them_on_standard_output(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main([*command.split(), "--json", "-", "--csv", "-"]) == 2
    assert capsys.readouterr().err == "Error: --csv: found standard output, which is of --json, expected a file\n"
    assert main([*command.split(), "--csv", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert len({len(row) for row in csv.reader(io.StringIO(printed.out), strict=True)}) == 1
