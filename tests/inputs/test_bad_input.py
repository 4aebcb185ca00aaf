"""Whatever is wrong with the input is one message: where, what was found, what is expected. Nothing is written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import create_model

from offsim import __path__ as package
from offsim.cli import main
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.fields import Section
from offsim.inputs.validate import validate
from offsim.validation.run_table import SHIPPED_RUNS
from tests.conftest import Complaint

ROOT = Path(package[0]).parent
SCENARIO = """\
hardware: jlse-4xh100
model:
  layers: 4
  hidden: 512
  ffn_hidden: 1024
  heads: 8
  kv_heads: 8
  vocab: 1000
  sequence: 128
training:
  micro_batch: 1
  global_batch: 8
  data_parallel: 4
  subgroup_size: 1e8
scheduler:
  name: deep_optimizer_states
  update_stride: 2
  cpu_ratio: 1.0
"""
OUTPUTS = ("--json", "out.json", "--plot", "out.png", "--trace", "out.json.gz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tests' relative paths lead."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(SCENARIO)
    return tmp_path


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_the_scenario_itself_is_right(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["run", "mine.yaml", *OUTPUTS]) == 0
    assert sorted(files()) == ["mine.yaml", "out.json", "out.json.gz", "out.png"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layers:", "layer:", "mine.yaml:3: unknown key 'layer' in model; did you mean 'layers'?"),
        (
            "jlse-4xh100",
            "jlse-4xh10",
            "mine.yaml:1: unknown hardware profile 'jlse-4xh10'; did you mean 'jlse-4xh100'?",
        ),
        (
            "deep_optimizer_states",
            "deep_optimiser_states",
            "mine.yaml:16: unknown scheduler 'deep_optimiser_states'; did you mean 'deep_optimizer_states'?",
        ),
        ("update_stride", "stride", "mine.yaml:17: unknown key 'stride' in scheduler; did you mean 'update_stride'?"),
    ],
    ids=lambda text: text if text.isidentifier() else None,
)
def test_a_wrong_scenario(complaint: Complaint, old: str, new: str, message: str) -> None:
    Path("mine.yaml").write_text(SCENARIO.replace(old, new, 1))
    assert complaint("run", "mine.yaml", *OUTPUTS).startswith(message)
    assert complaint("compare", "mine.yaml", *OUTPUTS[:4]).startswith(message)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mien.yaml", "mien.yaml: no such file; did you mean 'mine.yaml'?"),
        ("./", ".: found a folder, expected a YAML file"),
        ("dos_20b_4xh10", "unknown scenario 'dos_20b_4xh10'; did you mean 'dos_20b_4xh100'?"),
        ("a\0b", "unknown scenario 'a"),
    ],
)
def test_a_scenario_that_is_not_there(complaint: Complaint, source: str, message: str) -> None:
    assert complaint("run", source, *OUTPUTS).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.layers=3", "unknown key 'modle'; did you mean 'model'?"),
        ("hardware=gh20", "unknown hardware profile 'gh20'; did you mean 'gh200'?"),
        ("scheduler.name=zero3_ofload", "unknown scheduler 'zero3_ofload'; did you mean 'zero3_offload'?"),
        (
            "hardware_changes.link.h2d_bytes_per_s=1e-300",
            "link.h2d_bytes_per_s: found 1e-300, expected a number between 1e-30 and 1e+30 in size",
        ),
    ],
)
def test_a_wrong_override(complaint: Complaint, override: str, message: str) -> None:
    expected = f"override '{override}': {message}"
    assert complaint("run", "mine.yaml", "--set", override, *OUTPUTS).startswith(expected)
    assert complaint("compare", "mine.yaml", "--set", override).startswith(expected)


def test_an_option_that_no_scheduler_has_is_not_dropped_with_the_others(complaint: Complaint) -> None:
    expected = (
        "override 'scheduler.updte_stride=3': unknown key 'updte_stride' in scheduler; did you mean 'update_stride'?"
    )
    options = ("mine.yaml", "--set", "scheduler.updte_stride=3", "--scheduler")
    for command in ("run", "compare"):
        for scheduler in ("deep_optimizer_states", "deep_optimizer_states:cpu_ratio=0.5"):
            assert complaint(command, *options, scheduler) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("zero3_ofload", "unknown scheduler 'zero3_ofload'; did you mean 'zero3_offload'?"),
        ("zero3_offload:cpu_ratio=2", "scheduler.cpu_ratio: found 2, expected at most 1"),
        ("zero3_offload:cpu_ratio", "expected key=value, such as name:option=value"),
        ("no_offload:update_stride=2", "unknown key 'update_stride' in scheduler; nothing"),
    ],
)
def test_a_wrong_scheduler(complaint: Complaint, choice: str, message: str) -> None:
    expected = f"--scheduler '{choice}': {message}"
    assert complaint("run", "mine.yaml", "--scheduler", choice, *OUTPUTS).startswith(expected)
    assert complaint("compare", "mine.yaml", "--scheduler", "no_offload", "--scheduler", choice).startswith(expected)


def test_a_wrong_profile(complaint: Complaint) -> None:
    Path("a.yaml").write_text("name: a\nvalidated: false\n")
    Path("mine.yaml").write_text(SCENARIO.replace("jlse-4xh100", "a.yaml"))
    message = "a.yaml:1: missing keys: description, gpus_per_node, gpu.memory_bytes, gpu.reserved_bytes, "
    assert complaint("run", "mine.yaml", *OUTPUTS).startswith(message)
    assert complaint("profiles", "./a.yaml").startswith(message)


def test_more_gpus_than_a_node_without_a_network_has(complaint: Complaint) -> None:
    text = SCENARIO.replace("jlse-4xh100", "workstation-rtx4090")
    Path("mine.yaml").write_text(text)
    message = complaint("run", "mine.yaml", *OUTPUTS)
    assert message.startswith("mine.yaml:13: data_parallel x tensor_parallel = 4 GPUs are 2 nodes of 2, but profile ")


def test_a_wrong_table(complaint: Complaint) -> None:
    assert complaint("validate", "runs.csv").startswith("runs.csv: no such file")
    Path("runs.csv").write_text(SHIPPED_RUNS.read_text().replace("layers", "layres", 1))
    message = "runs.csv:1: missing the column 'layers'; the nearest found is 'layres'"
    assert complaint("validate", "runs.csv", *OUTPUTS[:4]).startswith(message)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            ["--plot", "out.pgn"],
            "--plot 'out.pgn': found the suffix '.pgn', expected .png, .pdf or .svg; did you mean '.png'?",
        ),
        (["--plot", "out"], "--plot 'out': found no suffix, expected .png, .pdf or .svg"),
        (["--json", "no/out.json"], "--json 'no/out.json': found the missing folder 'no', expected a folder"),
        (
            ["--json", "mine.yaml/out.json"],
            "--json 'mine.yaml/out.json': found the file 'mine.yaml', expected a folder",
        ),
        (["--json", "."], "--json '.': found a folder, expected a file"),
        (["--json", ""], "--json '': found an empty name, expected a file's"),
        (["--json", "x" * 300], f"--json '{'x' * 300}': cannot be written: File name too long"),
        (["--json", "a\0b"], "--json 'a\\x00b': cannot be written: "),
        (["--json", "mine.yaml"], "--json 'mine.yaml': found the file that is read, expected another one"),
        (
            ["--json", "a.json", "--trace", "./a.json"],
            "--json 'a.json': found the file of --trace, expected another one",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else None,
)
def test_an_output_that_cannot_be_written(
    complaint: Complaint, monkeypatch: pytest.MonkeyPatch, outputs: list[str], message: str
) -> None:
    # It is found before anything is simulated.
    monkeypatch.setattr("offsim.results.simulate.simulate", None)
    assert complaint("run", "mine.yaml", *outputs).startswith(message)


def test_outputs_of_the_other_commands_are_checked_first_too(
    complaint: Complaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offsim.results.comparison.compare", None)
    monkeypatch.setattr("offsim.validation.predictions.validate_runs", None)
    assert complaint("compare", "mine.yaml", "--plot", "out.gif").startswith(
        "--plot 'out.gif': found the suffix '.gif'"
    )
    assert complaint("validate", "--json", "no/out.json").startswith("--json 'no/out.json': found the missing folder")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_may_not_be_written(complaint: Complaint, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert "nothing may be written" in complaint("run", "mine.yaml", "--json", "locked/out.json")
    (folder / "old.json").write_text("old")
    (folder / "old.json").chmod(0o400)
    assert "may not be written" in complaint("run", "mine.yaml", "--json", "old.json")


def test_a_full_disk_is_a_message_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = files()
    assert main(["run", "mine.yaml", "--json", "out.json"]) == 2
    assert capsys.readouterr().err == "Error: --json 'out.json': cannot be written: No space left on device\n"
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profiles", "gh20"], "unknown hardware profile 'gh20'; did you mean 'gh200'?"),
        (["schedulers", "zero3"], "unknown scheduler 'zero3'"),
    ],
)
def test_an_unknown_name(complaint: Complaint, arguments: list[str], message: str) -> None:
    assert complaint(*arguments).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "mine.yaml", "--set", "model.layer=3"],
            "Error: override 'model.layer=3': unknown key 'layer' in model",
        ),
        (["run", "mine.yaml", "--plto", "a.png"], "--plot"),
    ],
)
def test_the_process_ends_with_the_message_and_status_2(folder: Path, arguments: list[str], message: str) -> None:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "offsim", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=folder)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert sorted(files()) == ["mine.yaml"]


def test_options_of_a_type_that_cannot_be_checked_name_their_model() -> None:
    with pytest.raises(InputError, match=r"Odd: Unable to generate .*BytesIO"):
        validate(Document({}), create_model("Odd", __base__=Section, odd=(io.BytesIO, ...)))
