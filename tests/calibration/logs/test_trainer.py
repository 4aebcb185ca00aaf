"""Logs of Hugging Face's Trainer, and the configuration files in place of what logs do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from offsim.calibration.logs import lines
from offsim.calibration.logs.logged_runs import missing, read_log
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.scenario import available_scenarios, load_scenario
from offsim.validation.run_table import cells_of, read_runs, run_of
from tests.calibration.synthetic_logs import whole_log
from tests.conftest import Complaint
from tests.imports.files import ACCELERATE, DS_CONFIG, LLAMA_2_7B, changed, write

BEGIN = """***** Running training *****
  Num examples = 64,000
  Num Epochs = 1
  Instantaneous batch size per device = 2
  Total train batch size (w. parallel, distributed & accumulation) = 16
  Gradient Accumulation steps = 2
  Total optimization steps = 4,000
  Number of trainable parameters = 6,738,415,616
"""
STEP = "{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.1}\n"


def end(runtime: object, rate: object) -> str:
    return f"{{'train_runtime': {runtime}, 'train_loss': 1.5, 'train_steps_per_second': {rate}, 'epoch': 1}}\n"


def written(folder: Path, text: str, name: str = "train.log") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("quote", ["", "'"])
def test_the_printed_end_is_the_mean_of_all_iterations(tmp_path: Path, quote: str) -> None:
    """20,150 s over 4,000 steps: the printed rate, 0.199, alone would say 5,025 ms."""
    text = BEGIN + STEP * 3 + end(f"{quote}20150{quote}", f"{quote}0.199{quote}")
    (row,) = read_log(written(tmp_path, f"  1%|=  | 40/4000 [00:50<15:50]\r{text}"))
    assert (row["iteration_ms"], row["iterations"]) == ("5037.5", "4000")
    columns = ("micro_batch", "global_batch", "dp", "params_per_tp_rank")
    assert [row[name] for name in columns] == ["2", "16", "4", "6738415616"]
    assert {"fwd_ms", "bwd_ms", "step_ms"} <= set(missing(row))


@pytest.mark.parametrize("begin", ["", BEGIN])
def test_steps_that_were_not_run_do_not_count(tmp_path: Path, begin: str) -> None:
    """100 steps in 502 s are 0.199 a second, whatever number was announced."""
    (row,) = read_log(written(tmp_path, begin + end(502, 0.199)))
    assert (row["iteration_ms"], row["iterations"]) == ("5020.0", "100")


def test_phases_of_deepspeed_stay(tmp_path: Path) -> None:
    (row,) = read_log(written(tmp_path, "\n".join(whole_log()) + "\n" + end(500, 0.1)))
    assert (row["fwd_ms"], row["iteration_ms"]) == ("1256.0", "20580.0")


def state(*history: dict[str, Any], **more: Any) -> str:
    return json.dumps({"train_batch_size": 2, "global_step": 40, "log_history": history, **more})


LAST = {"step": 40, "train_runtime": 400.0, "train_steps_per_second": 0.1, "train_loss": 1.0}


def test_a_state_has_the_exact_number_of_steps(tmp_path: Path) -> None:
    (row,) = read_log(written(tmp_path, state({"loss": 1.0, "step": 20}, LAST), "trainer_state.json"))
    assert (row["iteration_ms"], row["iterations"], row["micro_batch"]) == ("10000.0", "40", "2")


def test_a_state_with_tokens_leaves_the_warm_up_out(tmp_path: Path) -> None:
    """The first ten steps take 190 s, the others 7 s each."""
    entries = [{"step": step, "loss": 1.0, "train_runtime": 190 + 7.0 * (step - 10)} for step in (10, 20, 30, 40)]
    (row,) = read_log(written(tmp_path, state(*entries, LAST), "trainer_state.json"))
    assert (row["iteration_ms"], row["iterations"]) == ("7000.0", "40")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1, 2]", "missing key 'log_history': expected a trainer_state.json"),
        ("{", "not valid JSON"),
        (json.dumps(DS_CONFIG), "missing key 'log_history'"),
        (state({"loss": 1.0, "step": 20}), "found no train_runtime in log_history, expected the file of a run that"),
        (state({"step": True, "train_runtime": "x"}, 5, None), "found no train_runtime"),  # type: ignore[arg-type]
    ],
)
def test_states_without_times_are_one_message(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_log(written(tmp_path, text, "trainer_state.json"))


def test_every_setting_has_a_word_that_lines_are_found_by() -> None:
    for name in (*lines._ARGUMENTS, *lines._TRAINER_NAMES):
        assert any(word in f"  {name} = " for word in lines.WORDS), name


# What logs do not say


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, model=changed(LLAMA_2_7B, num_hidden_layers=2))
    written(tmp_path, BEGIN + end(20150, 0.199))
    return tmp_path


@pytest.mark.parametrize("name", ["deepspeed", "fsdp"])
def test_the_files_fill_the_row(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(ACCELERATE))
    file = {"deepspeed": "ds_config.json", "fsdp": "accelerate.yaml"}[name]
    options = (f"--{name}", file, "--model", "config.json", "--hardware", "jlse-4xh100")
    assert main(["logs", "train.log", "--out", "runs.csv", *options]) == 0
    told = capsys.readouterr().err
    assert "does not say" not in told
    assert ("train.log says global_batch 16, the scenario 32: the log's is written" in told) == (name == "fsdp")
    (run,) = read_runs("runs.csv").runs
    assert run.scenario.scheduler.name == {"deepspeed": "zero3_offload", "fsdp": "fsdp_offload"}[name]
    assert (run.scenario.model.layers, run.scenario.training.global_batch) == (2, 16)
    assert run.measured == {"iteration_ms": 5037.5}


def test_what_the_log_says_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told where the scenario differs."""
    written(folder, "\n".join(whole_log()) + "\n", "phases.log")
    assert main(["logs", "phases.log", "--out", "runs.csv", "--scenario", "twinflow_13b_4xh100"]) == 0
    told = capsys.readouterr().err.splitlines()
    (run,) = read_runs("runs.csv").runs
    assert run.scenario.hardware == "jlse-4xh100"
    assert run.scenario.model.ffn_hidden == 13632
    assert "phases.log says ffn_hidden 13632, the scenario 13824: the log's is written" in told
    assert not any(" dp " in line for line in told)


def test_cells_read_back_are_the_scenario() -> None:
    """All that columns can say; what they cannot is listed."""
    for name in available_scenarios():
        scenario = load_scenario(name)
        if scenario.scheduler.name in ("zo2", "distzo2"):
            continue
        cells, unsaid = cells_of(scenario)
        back = run_of(Path("runs.csv"), 2, cells).scenario
        left, right = (one.model_dump(exclude={"name", "folder", "scheduler"}) for one in (back, scenario))
        assert (left == right) == (not unsaid), name
        assert all(key.startswith(("placement", "hardware_changes", "checkpoint")) for key in unsaid), (name, unsaid)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fwd_ms=nan", "found 'nan', expected a number above 0"),
        ("fwd_ms=-1", "found '-1', expected a number above 0"),
        ("mem_after_step_gib=x", "found 'x', expected a number above 0"),
        ("hardware=a\udcff", "found 'a\\udcff', expected text of one line"),
        ("gradient_flsh=blocking", "unknown column 'gradient_flsh'; did you mean 'gradient_flush'?"),
        ("hardware", "--set 'hardware': found no '=', expected COLUMN=VALUE"),
    ],
)
def test_values_that_no_measurement_has(folder: Path, complaint: Complaint, text: str, problem: str) -> None:
    assert problem in complaint("logs", "train.log", "--out", "runs.csv", "--set", text)
