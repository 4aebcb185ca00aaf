"""What sweep files say, and what is wrong with them."""

import pytest
import yaml

from offsim import InputError
from offsim.study.sweeps.sweep_file import read_sweep
from tests.small_scenarios import MODEL, scenario
from tests.study.small_sweeps import small_sweep


def rows(sweep):
    plan = read_sweep(sweep)
    return [plan.cells(position) for position in plan.positions()]


def column(name, given):
    return [row[name] for row in rows({"base": scenario(), "axes": {name: given}})]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ([4, 2, 3], [4, 2, 3]),
        ({"values": [4, 2]}, [4, 2]),
        ({"from": 1, "to": 4, "step": 1}, [1, 2, 3, 4]),
        ({"from": 9, "to": 3, "step": -4}, [9, 5]),
        ({"from": 2, "to": 2, "step": 1}, [2]),
        ({"from": 8, "to": 16, "count": 3}, [8, 12, 16]),
        ({"from": 1, "to": 64, "count": 7, "scale": "log"}, [1, 2, 4, 8, 16, 32, 64]),
        ({"from": 100, "to": 1, "count": 3, "scale": "log"}, [100, 10, 1]),
        ({"from": 7, "to": 9, "count": 1}, [7]),
    ],
)
def test_values_and_ranges(given, values):
    assert column("model.layers", given) == values


def test_steps_are_exact():
    assert column("scheduler.cpu_ratio", {"from": 0, "to": 1, "step": 0.1}) == [n / 10 for n in range(11)]


def test_an_option_is_an_axis_of_the_schedulers_that_have_it():
    found = rows(small_sweep())
    assert len(found) == 2 + 2 * 2
    assert {row["scheduler.update_stride"] for row in found if row["scheduler.name"] == "zero3_offload"} == {None}
    bases = [{**scenario(name), "name": name} for name in ("zero3_offload", "deep_optimizer_states")]
    found = rows({"base": bases, "axes": {"scheduler.update_stride": [2, 3]}})
    assert [(row["scenario"][:5], row["scheduler.update_stride"]) for row in found] == [
        ("zero3", None),
        ("deep_", 2),
        ("deep_", 3),
    ]


def test_the_order_of_axes_is_free_and_the_last_changes_fastest():
    axes = {"scheduler.update_stride": [2, 3], "scheduler.name": ["zero3_offload", "deep_optimizer_states"]}
    found = rows({"base": scenario(), "axes": axes})
    assert [(row["scheduler.update_stride"], row["scheduler.name"]) for row in found] == [
        (None, "zero3_offload"),
        (2, "deep_optimizer_states"),
        (3, "deep_optimizer_states"),
    ]


def test_zipped_axes_change_together():
    h2d, d2h = "hardware_changes.link.h2d_bytes_per_s", "hardware_changes.link.d2h_bytes_per_s"
    pcie = {"zip": {h2d: ["x1", "x2", 5e10], d2h: {"values": ["x1", "x3", 4e10]}}}
    found = rows({"base": scenario(), "axes": {"pcie": pcie}})
    assert [(row[h2d], row[d2h]) for row in found] == [("x1", "x1"), ("x2", "x3"), (5e10, 4e10)]


def test_sections_are_labelled_by_what_differs_or_as_the_file_does():
    deep, wide = {**MODEL, "layers": 8}, {**MODEL, "hidden": 128}
    assert column("model", [deep, wide]) == ["layers=8 hidden=64", "layers=4 hidden=128"]
    assert column("model", {"values": {"deep": deep, "wide": wide}}) == ["deep", "wide"]


def test_conditions_drop_points():
    sweep = small_sweep(scheduler__cpu_ratio={"from": 0, "to": 1, "count": 4})
    sweep["skip"] = [
        {"scheduler.name": "zero3_offload", "scheduler.cpu_ratio": [0, 0.333333333333]},
        {"scheduler.update_stride": 3},
    ]
    found = rows(sweep)
    assert len(found) == 2 * (2 + 4)  # on two links: without strides two ratios, with one stride four
    assert {row["scheduler.cpu_ratio"] for row in found if row["scheduler.update_stride"] is None} == {
        0.666666666667,
        1,
    }


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump(scenario(hardware="mine.yaml")))
    profile = "{name: mine, extends: jlse-4xh100, validated: false}"
    (folder / "mine.yaml").write_text(profile)
    (folder / "sweep.yaml").write_text("base: base.yaml\naxes: {hardware: [mine.yaml, gh200]}\n")
    monkeypatch.chdir(tmp_path)
    plan = read_sweep("sweeps/sweep.yaml")
    assert [axis.cells for axis in plan.axes] == [[("base",)], [("mine.yaml",), ("gh200",)]]
    assert plan.axes[1].values[0] == (str(folder / "mine.yaml"),)


BASE = "base: zero3_20b_4xh100\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("base: zero3_20b_4xh10", 1, "unknown scenario 'zero3_20b_4xh10'; did you mean 'zero3_20b_4xh100'?"),
        ("base: [zero3_20b_4xh100, zero3_20b_4xh100]", 1, "found 'zero3_20b_4xh100' twice"),
        ("base: []", 1, "found an empty list"),
        ("base: 3", 1, "base: found 3, expected a scenario's name or path"),
        ("axes: {}", 1, "missing key 'base'"),
        (BASE + "axis: {}", 2, "unknown key 'axis'; did you mean 'axes'?"),
        (BASE + "axes:\n  trainin.micro_batch: [1]", 3, "did you mean 'training.micro_batch'?"),
        (BASE + "axes:\n  training.micro_bach: [1]", 3, "key 'micro_bach' in training; did you mean 'micro_batch'?"),
        (BASE + "axes:\n  hardware_changes.gpu.ram: [1]", 3, "'ram' in hardware_changes.gpu; expected one of"),
        (BASE + "axes:\n  hardware_changes.gpu.memory_bytes: [1e-300]", 3, "between 1e-30 and 1e+30 in size"),
        (BASE + "axes:\n  model.layers: {from: 1, to: 1e300, count: 2}", 3, "between 1e-30 and 1e+30 in size"),
        (BASE + "axes:\n  scheduler.update_stride: [2]", 3, "is no option of zero3_offload, only of deep_opt"),
        (BASE + "axes:\n  scheduler.name: [zero3_ofload]", 3, "did you mean 'zero3_offload'?"),
        (BASE + "axes:\n  scheduler.name: [3]", 3, "found 3, expected text"),
        (BASE + "axes:\n  scheduler: [{name: zero3_offload, cpu: 1}]", 3, "unknown key 'cpu' in scheduler"),
        (BASE + "axes:\n  scheduler: [{cpu_ratio: 1}]", 3, "missing key 'scheduler.name'"),
        (BASE + "axes:\n  hardware: [gh20]", 3, "did you mean 'gh200'?"),
        (BASE + "axes:\n  hardware_changes.link.h2d: [1]", 3, "unknown key 'h2d' in hardware_changes.link"),
        (BASE + "axes:\n  hardware_changes.link.h2d_bytes_per_s: [2x]", 3, "found '2x', expected bytes per second"),
        (BASE + "axes:\n  hardware_changes: [{link: {h2d: 1}}]", 3, "unknown key 'h2d' in hardware_changes.link"),
        (BASE + "axes:\n  training.micro_batch: []", 3, "found an empty axis"),
        (BASE + "axes:\n  training.micro_batch: 2", 3, "found 2, expected a list of values"),
        (BASE + "axes:\n  training.micro_batch:\n    - 1\n    - 1.5", 5, "found 1.5, expected a whole number"),
        (BASE + "axes:\n  model: [{layers: 4}]", 3, "missing keys: model.hidden, "),
        (BASE + "axes:\n  model.layers: [4]\n  model.layers: [5]", 4, "duplicate key"),
        (BASE + "axes:\n  model.layers: [4]\n  a: {zip: {model.layers: [5]}}", 4, "duplicate axis 'model.layers'"),
        (BASE + "axes:\n  a: {zip: {model.layers: [5], model.heads: [8, 16]}}", 3, "expected equally many values"),
        (BASE + "axes:\n  model.layers: {from: 1, to: 4}", 3, "expected either step or count"),
        (BASE + "axes:\n  model.layers: {from: 1, to: 4, step: -1}", 3, "found -1, expected a step that leads"),
        (BASE + "axes:\n  model.layers: {from: 1, to: 4, step: 0}", 3, "found 0, expected a step that leads"),
        (BASE + "axes:\n  model.layers: {from: 1, to: 4, step: 1e-9}", 3, "a range of at most 100,000 values"),
        (BASE + "axes:\n  model.layers: {from: 0, to: 4, count: 3, scale: log}", 3, "expected more than 0"),
        (BASE + "axes:\n  model.layers: [4]\nskip:\n  - {model.heads: 1}", 5, "'model.heads' is no axis"),
        (BASE + "axes:\n  model.layers: [4]\nskip:\n  - {model.layers: 5}", 5, "found 5, expected a value of that"),
        (BASE + "axes:\n  model.layers: [4]\nskip: [{}]", 4, "expected a condition"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text, line, problem, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_sweep(path)
    assert problem in raised.value.problem
    assert raised.value.where == f"{path}:{line}"
