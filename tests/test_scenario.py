"""Scenarios from files, mappings and overrides; what is wrong in them is said with its file and line."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from offsim import scenario as scenario_module
from offsim.inputs.errors import InputError
from offsim.inputs.fields import Number, Section
from offsim.scenario import Scenario, available_scenarios, load_scenario, scheduler_options
from tests.inputs.messages import message_of

TEXT = """\
# A 20B model
hardware: jlse-4xh100
model:
  layers: 40
  hidden: 5120
  ffn_hidden: 20480
  heads: 64
  kv_heads: 4
  vocab: 50304
  sequence: 2048
training:
  micro_batch: 1
  global_batch: 8
  data_parallel: 4
  subgroup_size: 1e8
scheduler:
  name: deep_optimizer_states
  update_stride: 2
"""

VALUES: dict[str, Any] = yaml.safe_load(TEXT)


class Options(Section):
    update_stride: int = Field(default=2, ge=2)
    cpu_ratio: Number = Field(default=1.0, ge=0, le=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dos.yaml"
    path.write_text(TEXT)
    return path


def test_from_a_file(file: Path) -> None:
    scenario = load_scenario(file)
    assert (scenario.name, scenario.folder) == ("dos", file.parent)
    assert scenario.training.subgroup_size == 100_000_000
    assert scenario.training.micro_steps == 2
    assert scenario.scheduler.options == {"update_stride": 2}
    assert load_scenario(str(file)) == scenario


def test_from_a_mapping_is_the_same_as_from_a_file(file: Path) -> None:
    from_mapping = load_scenario(VALUES | {"name": "dos", "folder": file.parent})
    assert from_mapping == load_scenario(file)
    assert VALUES["training"]["subgroup_size"] == "1e8"  # left alone


def test_attention_is_fused_with_key_value_heads_for_each_head_unless_said_otherwise() -> None:
    model = {key: value for key, value in VALUES["model"].items() if key != "kv_heads"}
    chosen = load_scenario(VALUES | {"model": model}).model
    assert (chosen.flash_attention, chosen.kv_heads) == (True, chosen.heads)
    with pytest.raises(InputError, match=r"missing key 'model\.heads'"):
        load_scenario(VALUES | {"model": {key: value for key, value in model.items() if key != "heads"}})


def test_a_scenario_is_taken_as_it_is() -> None:
    scenario = load_scenario(VALUES)
    assert load_scenario(scenario) is scenario


def test_overrides_of_a_scenario_keep_the_rest(file: Path) -> None:
    scenario = load_scenario(load_scenario(file), ["scheduler.update_stride=3", "training.micro_batch=2"])
    assert scenario.scheduler.options == {"update_stride": 3}
    assert (scenario.training.micro_batch, scenario.training.global_batch) == (2, 8)
    assert (scenario.name, scenario.folder) == ("dos", file.parent)


def test_survives_pickling(file: Path) -> None:
    scenario = load_scenario(file)
    unpickled = pickle.loads(pickle.dumps(scenario))
    assert unpickled == scenario
    assert unpickled.document.mark(("model", "heads")).line == 7


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ("hardware: jlse-4xh100", "hardware: no", "2: hardware: found no, expected text"),
        ("hardware: jlse-4xh100", "hardwar: jlse", "2: unknown key 'hardwar'; did you mean 'hardware'?"),
        ("hardware: jlse-4xh100", "", "3: missing key 'hardware'"),
        (
            "hardware: jlse-4xh100",
            "hardware: x\nfolder: .",
            "3: unknown key 'folder'; expected one of: "
            "checkpoint, hardware, hardware_changes, model, name, placement, price_per_gpu_hour, scheduler, training",
        ),
        ("layers: 40", "layers: true", "4: model.layers: found true, expected a whole number"),
        ("layers: 40", "layers: 1.5", "4: model.layers: found 1.5, expected a whole number"),
        ("layers: 40", "layers: many", "4: model.layers: found 'many', expected a whole number"),
        ("layers: 40", "layers: 0", "4: model.layers: found 0, expected at least 1"),
        ("layers: 40", "layers: 1e6", "4: model.layers: found 1e6, expected at most 100000"),
        ("layers: 40", "layers:", "4: model.layers: found nothing, expected a whole number"),
        ("layers: 40", "layers: 40\n  layres: 2", "5: unknown key 'layres' in model; did you mean 'layers'?"),
        ("  heads: 64\n", "", "3: missing key 'model.heads'"),
        ("heads: 64", "heads: 7", "7: model.heads: found 7, expected a divisor of model.hidden (5120)"),
        ("kv_heads: 4", "kv_heads: 3", "8: model.kv_heads: found 3, expected a divisor of model.heads (64)"),
        (
            "global_batch: 8",
            "global_batch: 6",
            "13: training.global_batch: found 6, expected a multiple of micro_batch x data_parallel (1 x 4)",
        ),
        ("subgroup_size: 1e8", "subgroup_size: -1e8", "15: training.subgroup_size: found -1e8, expected at least 1"),
        (
            "data_parallel: 4",
            "data_parallel: 4\n  tensor_parallel: 3",
            "15: training.tensor_parallel: found 3, expected a divisor of model.heads (64)",
        ),
        (
            "data_parallel: 4",
            "activation_checkpointing: 1",
            "14: training.activation_checkpointing: found 1, expected true or false",
        ),
        ("name: deep_optimizer_states", "nam: x", "16: missing key 'scheduler.name'"),
        ("name: deep_optimizer_states", "name: 3", "17: scheduler.name: found 3, expected text"),
        ("update_stride: 2", "update_stride: .nan", "18: found .nan, expected a finite number"),
        ("update_stride: 2", "update_stride: 2\n  update_stride: 3", "19: duplicate key 'scheduler.update_stride'; "),
    ],
)
def test_what_is_wrong_in_a_file(file: Path, line: str, wrong: str, message: str) -> None:
    assert TEXT.count(line) >= 1
    file.write_text(TEXT.replace(line, wrong, 1))
    assert message_of(lambda: load_scenario(file)).startswith(f"{file}:{message}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "missing keys: hardware, model, training, scheduler"),
        ({key: VALUES[key] for key in VALUES if key != "model"}, "missing key 'model'"),
        (VALUES | {"modle": 3}, "unknown key 'modle'; did you mean 'model'?"),
        (VALUES | {"model": VALUES["model"] | {"heads": 7}}, "model.heads: found 7, expected a divisor of model.hid"),
        (VALUES | {"folder": 3}, "folder: found 3, expected a path"),
        ("no-such-scenario", "unknown scenario 'no-such-scenario'"),
        ("no/such/scenario", "no/such/scenario: no such file"),
        ("scenario.yml", "scenario.yml: no such file"),
    ],
)
def test_what_is_wrong_elsewhere(source: str | dict[str, Any], message: str) -> None:
    assert message_of(lambda: load_scenario(source)).startswith(message)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("training.micro_batc=2", "unknown key 'micro_batc' in training; did you mean 'micro_batch'?"),
        ("trainin.micro_batch=2", "unknown key 'trainin'; did you mean 'training'?"),
        ("training.data_parallel=x", "training.data_parallel: found 'x', expected a whole number"),
        ("hardware.gpu=2", "'hardware' is a value, not a section of keys"),
        (
            "folder=/",
            "unknown key 'folder'; expected one of: "
            "checkpoint, hardware, hardware_changes, model, name, placement, price_per_gpu_hour, scheduler, training",
        ),
        ("model=3", "model: found 3, expected a section of keys"),
    ],
)
def test_what_is_wrong_in_an_override(file: Path, override: str, problem: str) -> None:
    assert message_of(lambda: load_scenario(file, [override])) == f"override '{override}': {problem}"


def test_scheduler_options(file: Path) -> None:
    options = scheduler_options(load_scenario(file, ["scheduler.cpu_ratio=0.5"]), Options)
    assert options == Options(update_stride=2, cpu_ratio=0.5)


def in_file(file: Path, written: str) -> Scenario:
    file.write_text(TEXT.replace("update_stride: 2", written))
    return load_scenario(file)


def in_override(file: Path, written: str) -> Scenario:
    key, _, value = written.partition(": ")
    return load_scenario(file, [f"scheduler.{key}={value}"])


def in_python(file: Path, written: str) -> Scenario:
    key, _, value = written.partition(": ")
    values = load_scenario(file).model_dump()
    values["scheduler"] = {"name": "x", key: float(value)}
    return Scenario(**values)


def copied_in_python(file: Path, written: str) -> Scenario:
    return load_scenario(file).model_copy(update={"scheduler": in_python(file, written).scheduler})


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("update_strid: 3.0", "unknown key 'update_strid' in scheduler; did you mean 'update_stride'?"),
        ("update_stride: 1.0", "scheduler.update_stride: found 1.0, expected at least 2"),
        ("cpu_ratio: 1.5", "scheduler.cpu_ratio: found 1.5, expected at most 1"),
    ],
)
@pytest.mark.parametrize(
    ("load", "where"),
    [(in_file, "{file}:18: "), (in_override, "override 'scheduler."), (in_python, ""), (copied_in_python, "")],
)
def test_what_is_wrong_in_scheduler_options(
    file: Path, load: Callable[[Path, str], Scenario], where: str, written: str, problem: str
) -> None:
    with pytest.raises(InputError) as error:
        scheduler_options(load(file, written), Options)
    assert str(error.value).startswith(where.format(file=file))
    assert error.value.problem == problem


def test_other_code_can_point_at_a_value(file: Path) -> None:
    error = load_scenario(file).document.error(("scheduler", "name"), "unknown scheduler")
    assert str(error) == f"{file}:17: unknown scheduler"


def test_scenarios_that_come_with_offsim_load_by_name(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    for name in available_scenarios():
        assert load_scenario(name).name
    monkeypatch.setattr(scenario_module, "packaged_files", lambda folder: {"dos_20b": file})
    message = "unknown scenario 'dos_20'; did you mean 'dos_20b'? (a path contains / or ends in .yaml)"
    assert message_of(lambda: load_scenario("dos_20")) == message


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PATHS = [(section, key) for section in ("model", "training", "scheduler") for key in VALUES[section]]


@given(path=st.sampled_from([*PATHS, *((key,) for key in VALUES)]), value=ANYTHING)
def test_any_value_gives_a_scenario_or_an_input_error(path: tuple[str, ...], value: object) -> None:
    values = copy.deepcopy(VALUES)
    section = values[path[0]] if len(path) == 2 else values
    section[path[-1]] = value
    with contextlib.suppress(InputError):
        assert isinstance(load_scenario(values), Scenario)
        assert isinstance(scheduler_options(load_scenario(values), Options), Options)


@given(
    key=st.sampled_from(["training.micro_batch", "scheduler.new", "name", "model", "hardware.gpu"]) | st.text(),
    value=st.text(st.characters(exclude_categories=())),
)
def test_any_override_gives_a_scenario_or_an_input_error(key: str, value: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(load_scenario(VALUES, [f"{key}={value}"]), Scenario)
