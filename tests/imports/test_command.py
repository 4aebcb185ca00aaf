"""`offsim run --deepspeed ...`: what it prints and writes, and that wrong input is one message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from offsim.cli import main
from offsim.inputs.packaged import packaged_file
from offsim.scenario import load_scenario
from tests.conftest import Complaint
from tests.imports.files import DS_CONFIG, LLAMA_2_7B, changed, write

FILES = ("--deepspeed", "ds_config.json", "--model", "config.json", "--hardware", "jlse-4xh100")
SMALL = changed(LLAMA_2_7B, num_hidden_layers=2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, model=SMALL)
    return tmp_path


def run(*arguments: str) -> None:
    assert main(["run", *arguments]) == 0


def written(path: str) -> Any:
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--set", "training.micro_batch=1", "--set", "model.layers=3"),
        ("--set", "hardware_changes.link.h2d_bytes_per_s=x2", "--set", "hardware_changes.host.cores=5e1"),
        ("--scheduler", "deep_optimizer_states:update_stride=3"),
        ("--set", "scheduler.cpu_ratio=0.5", "--scheduler", "no_offload"),
        ("--sequence", "512", "--gpus", "2", "--set", "name='no: # 1'"),
        ("--gpus", "4", "--set", "training.reduce_bucket_size=1e8"),
    ],
    ids=["plain", "set", "hardware", "scheduler", "dropped", "options", "bucket"],
)
def test_the_written_scenario_gives_the_same_result(more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if "2" in more:
        write(Path(), changed(DS_CONFIG, train_batch_size=8), SMALL)
    run(*FILES, *more, "--emit-scenario", "mine.yaml", "--json", "first.json")
    first = capsys.readouterr().out
    run("mine.yaml", "--json", "second.json")
    assert written("first.json") == written("second.json")
    assert first.endswith(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["\N{GRINNING FACE} #1: [", "a\x85b\u2028c", "null", 'a"b'])
def test_any_name_of_a_model_is_read_back_from_the_written_scenario(name: str) -> None:
    write(Path(), model=changed(SMALL, _name_or_path=name))
    run(*FILES, "--emit-scenario", "mine.yaml")
    assert load_scenario("mine.yaml").name == name


def test_the_written_scenario_says_where_its_values_come_from() -> None:
    run(*FILES, "--set", "training.micro_batch=1", "--emit-scenario", "mine.yaml")
    lines = Path("mine.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(Path("ds_config.json").read_text().splitlines()) if "sub_group" in text)
    found = next(text for text in lines if "subgroup_size" in text).split("#")
    assert found[0].strip() == "subgroup_size: 100_000_000"
    assert found[1].strip() == f"ds_config.json:{line} zero_optimization.sub_group_size: 100000000.0"
    assert any(text.endswith("# override 'training.micro_batch=1'") for text in lines)


def test_a_profile_of_ones_own_is_found_from_the_written_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    source = packaged_file("hardware_profiles", "jlse-4xh100")
    assert source is not None
    shutil.copy(source, "jlse-4xh100.yaml")
    Path("below").mkdir()
    run(*FILES[:-1], "./jlse-4xh100.yaml", "--emit-scenario", "below/mine.yaml", "--json", "first.json")
    run("below/mine.yaml", "--json", "second.json")
    assert written("first.json")["iteration_s"] == written("second.json")["iteration_s"]


def test_any_scenario_can_be_written() -> None:
    run("dos_20b_4xh100", "--set", "scheduler.update_stride=3", "--emit-scenario", "mine.yaml", "--json", "first.json")
    run("mine.yaml", "--json", "second.json")
    assert written("first.json") == written("second.json")


def test_the_lists_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    run(*FILES, "--set", "training.micro_batch=1")
    printed = capsys.readouterr().out
    titles = ("taken from the files", "assumed", "ignored", "not modelled", "changed on the command line", "scenario  ")
    places = [printed.index(f"\n{title}") if title != titles[0] else printed.index(title) for title in titles]
    assert places == sorted(places)
    assert "training.micro_batch 1" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_json_alone_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    run(*FILES, "--json", "-")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == "Llama-2-7b-hf"
    assert printed.err.startswith("taken from the files\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "found no scenario, expected SCENARIO, or one of --deepspeed, --fsdp, --trainer, with --model and --"),
        (("mine", *FILES), "found the scenario 'mine' and --deepspeed, expected one or the other"),
        (("dos_20b_4xh100", "--gpus", "2"), "found the scenario 'dos_20b_4xh100' and --gpus, expected one or the"),
        (FILES[:2], "found --deepspeed without --model and --hardware, expected a configuration, --model and --h"),
        ((*FILES, "--gpus", "0"), "--gpus: found 0, expected at least 1"),
        ((*FILES, "--sequence", "-1"), "--sequence: found -1, expected at least 1"),
        ((*FILES[:-1], "jlse-4xh10"), "--hardware 'jlse-4xh10': unknown hardware profile 'jlse-4xh10'; did you mean"),
        ((*FILES[:-1], "no/such.yaml"), "--hardware 'no/such.yaml': no hardware profile at no/such.yaml"),
        ((*FILES[2:], "--deepspeed", "ds_confg.json"), "ds_confg.json: no such file; did you mean 'ds_config.json'?"),
        ((*FILES, "--model", "./missing"), "./missing: no such file or folder, expected config.json or its folder"),
        ((*FILES, "--model", "long" * 2000), "no such file or folder"),
        ((*FILES, "--model", "org/name"), "models of the Hugging Face Hub are not downloaded"),
        ((*FILES, "--set", "training.micro_batch=3"), "training.global_batch: found 16, expected a multiple of"),
        ((*FILES, "--emit-scenario", "mine.json"), "--emit-scenario 'mine.json': found the suffix '.json', expected"),
        ((*FILES, "--json", "config.json"), "--json 'config.json': found the file that is read, expected another one"),
    ],
)
def test_wrong_options(complaint: Complaint, arguments: tuple[str, ...], message: str) -> None:
    assert message in complaint("run", *arguments)


BATCHES = '{\n"train_batch_size": 16,\n"zero_optimization": {"stage": 3},\n"bf16": {"enabled": true}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "ds_config.json: found a list, expected an object: {...}"),
        ("train_batch_size: 16", "ds_config.json: found a section of keys, expected an object: {...}"),
        (f"{BATCHES}\n", "ds_config.json:5: not valid JSON: "),
        (f'{BATCHES}, "steps_per_print": NaN, "train_batch_size": 3}}', "ds_config.json:4: duplicate key"),
        (BATCHES.replace(": 16", ": NaN") + "}", "ds_config.json:2: train_batch_size: found 'NaN', expected a n"),
        (BATCHES.replace(": 16", ': 4e6, "gradient_accumulation_steps": 1e6') + "}", "ds_config.json:2: training.g"),
        (BATCHES.replace("3}", "4}") + "}", "ds_config.json:3: zero_optimization.stage: found 4, expected 0, 1"),
        ('{"a": "' + "x" * 1_000_000 + '"}', "ds_config.json: found more than 1000000 bytes, expected a small JSON"),
    ],
    ids=range(8),
)
def test_wrong_files(complaint: Complaint, content: str, message: str) -> None:
    write(Path(), content, SMALL)
    found = complaint("run", *FILES, "--json", "out.json", "--emit-scenario", "out.yaml")
    assert found.startswith(message)
    assert len(found) < 400


def test_comments_of_hjson_are_no_part_of_texts(complaint: Complaint, capsys: pytest.CaptureFixture[str]) -> None:
    board = '"tensorboard": {"output_path": "http://x/*#y", "job_name": "a\\"//"}'
    write(Path(), f'/* two\n lines */{BATCHES},# x\n // "x\n {board}, /**/ }} // end', SMALL)
    run(*FILES)
    assert "tensorboard -> reports" in " ".join(capsys.readouterr().out.split())
    write(Path(), f"/* two\n lines */{BATCHES},\n // \n typo: 1}}", SMALL)
    line = 3 + BATCHES.count("\n") + 1
    assert complaint("run", *FILES).startswith(f"ds_config.json:{line}: unknown key 'typo'")


def test_a_models_name_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path(), model=changed(SMALL, _name_or_path="a\x1b[2J\rb"))
    run(*FILES)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert "a\\x1b[2J" in printed


def test_an_error_points_to_the_file_that_a_value_is_from(complaint: Complaint) -> None:
    write(Path(), model=changed(SMALL, num_attention_heads=33, num_key_value_heads=33))
    message = complaint("run", *FILES)
    assert message == "config.json:11: model.heads: found 33, expected a divisor of model.hidden (4096)"


# The commands that take a scenario take the files as well


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "--scheduler", "zero3_offload", "--scheduler", "no_offload"),
        ("compare", "--all"),
        ("tune", "--over", "micro_batch", "--try", "micro_batch=1,2", "--jobs", "1", "--no-upgrades"),
        ("sensitivity",),
        ("optimum", "--set", "training.subgroup_size=4e8"),
        ("report", "--html", "page.html"),
        ("sweep", "sweep.yaml", "--out", "results", "--jobs", "1"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_every_command_takes_the_files(
    complaint: Complaint, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    Path("sweep.yaml").write_text("base: dos_20b_4xh100\naxes: {training.subgroup_size: [1e8, 2e8]}\n")
    assert main([*arguments, *FILES]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("taken from the files\n")
    assert "dos_20b" not in printed
    assert complaint(*arguments, *FILES[2:]).startswith("found --model without --deepspeed or --fsdp or --trainer, ")


def test_set_of_a_sweep_is_for_the_files(complaint: Complaint, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep.yaml").write_text("axes: {training.subgroup_size: [1e8]}\n")
    options = ("sweep.yaml", "--out", "results", "--jobs", "1")
    assert main(["sweep", *options, *FILES, "--set", "training.micro_batch=1"]) == 0
    assert "training.micro_batch 1" in capsys.readouterr().out
    message = complaint("sweep", *options, "--set", "training.micro_batch=1")
    assert message.startswith("--set: found no files that make the scenario")
