"""simulate() and compare(): where scenarios come from, what is refused, schedulers of other packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_scenarios import profile, scenario, small_buckets

import offsim
from offsim import InputError, compare, simulate
from offsim.api import Comparison
from offsim.programs.training import MAX_LIVE
from offsim.results.comparison import default_labels
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers import available_schedulers, find_scheduler, with_scheduler
from offsim.schedulers.registry import BUILT_IN


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(scenario("zero3_offload"), sort_keys=False))
    return path


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


def test_sources_give_the_same(file: Path) -> None:
    loaded = load_scenario(file)
    built = Scenario(**{key: value for key, value in scenario("zero3_offload").items()})
    times = [simulate(source).iteration_s for source in (file, str(file), scenario("zero3_offload"), loaded, built)]
    assert len(set(times)) == 1
    assert simulate(file).name == "small"


def test_the_gradient_bucket_is_as_large_as_the_scenario_says(file: Path) -> None:
    given = simulate(file, ["training.reduce_bucket_size=60_000"])
    assert given.peaks[0].occupants["gradient bucket"] == 2 * 60_000
    with small_buckets(60_000, reuse=MAX_LIVE):
        assert given.iteration_s == simulate(file).iteration_s
    assert given.iteration_s != simulate(file).iteration_s


def test_overrides(file: Path) -> None:
    assert simulate(file, ["scheduler.cpu_ratio=0"]).scenario.scheduler.options == {"cpu_ratio": 0}
    assert simulate(file, ["training.global_batch=8"]).run.workload.training.micro_steps == 4


def test_all_ranks(file: Path) -> None:
    assert simulate(file, all_ranks=True).timeline["rank"].unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("scheduler", "problem"),
    [
        ({"name": "zero3_ofload"}, "unknown scheduler 'zero3_ofload'; did you mean 'zero3_offload'?"),
        (
            {"name": "deep_optimizer_states", "update_stride": 1},
            "scheduler.update_stride: found 1, expected at least 2",
        ),
        ({"name": "zero3_offload", "cpu_ratio": 1.5}, "scheduler.cpu_ratio: found 1.5, expected at most 1"),
        (
            {"name": "deep_optimizer_states", "update_strid": 3},
            "unknown key 'update_strid' in scheduler; did you mean 'update_stride'?",
        ),
        ({"name": "no_offload", "cpu_ratio": 0.5}, "unknown key 'cpu_ratio' in scheduler"),
    ],
)
def test_bad_schedulers_are_pointed_at(file: Path, scheduler: dict[str, Any], problem: str) -> None:
    file.write_text(yaml.safe_dump(scenario(scheduler), sort_keys=False))
    with pytest.raises(InputError) as caught:
        simulate(file)
    line = line_of(file, f"{list(scheduler)[-1]}: {list(scheduler.values())[-1]}")
    assert str(caught.value).startswith(f"{file}:{line}: {problem}")
    with pytest.raises(InputError, match=r"^(unknown|scheduler)"):
        simulate(scenario(scheduler))


def test_bad_override_is_pointed_at(file: Path) -> None:
    with pytest.raises(InputError, match=r"override 'scheduler.cpu_ratio=2': scheduler.cpu_ratio: found 2"):
        simulate(file, ["scheduler.cpu_ratio=2"])


@pytest.mark.parametrize("given", [{}, {"zero_stage": 3}])
def test_a_scheduler_of_other_stages_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"training.zero_stage: found 3, expected 1 or 2 with scheduler zero2_offload"):
        simulate(scenario("zero2_offload", training=given))


def test_several_nodes_need_a_network(file: Path) -> None:
    overrides = ["training.data_parallel=8", "training.global_batch=8"]
    with pytest.raises(InputError, match="8 GPUs are 2 nodes of 4, but profile 'made-up' has no network"):
        simulate(file, overrides, profile=profile(interconnect={"nic_bytes_per_s": None}))
    assert simulate(file, overrides, profile=profile()).run.layout.nodes == 2


def test_only_the_serial_update_converts_into_fresh_pages() -> None:
    fresh, staged = 1e9, 5e9
    node = profile(host={"downcast_params_per_s": staged, "fresh_downcast_params_per_s": fresh})

    serial, as_before = (simulate(scenario("zero3_offload"), profile=on) for on in (node, profile()))
    owned = serial.run.workload.partition
    assert serial.iteration_s - as_before.iteration_s == pytest.approx(owned / fresh - owned / staged)
    overlapped, as_before = (simulate(scenario("deep_optimizer_states"), profile=on) for on in (node, profile()))
    assert overlapped.durations == as_before.durations


def test_public_names() -> None:
    for name in offsim.__all__:
        assert getattr(offsim, name).__name__ == name
        assert name in dir(offsim)
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        offsim.simulat  # noqa: B018


class TestCompare:
    def test_schedulers(self) -> None:
        found = compare(scenario("zero3_offload"), ["zero3_offload", "zero3_offload_async_grads"])
        assert found.labels == ["zero3_offload", "zero3_offload_async_grads"]
        summary = found.summary()
        assert summary.loc["zero3_offload", "speedup"] == 1.0
        times = [result.iteration_s for result in found]
        assert summary["speedup"].iloc[1] == pytest.approx(times[0] / times[1])
        assert found["zero3_offload_async_grads"] is found[1]
        assert len(found) == 2
        assert f"{times[0] / times[1]:.2f}x" in repr(found)
        assert "<table" in found._repr_html_()
        assert found.plot().get_axes()
        assert [entry["label"] for entry in found.to_dict()["results"]] == found.labels

    def test_options_that_another_scheduler_does_not_know_are_dropped(self) -> None:
        source = scenario({"name": "deep_optimizer_states", "update_stride": 3, "cpu_ratio": 0.5})
        found = compare(source, ["no_offload", "zero3_offload", "deep_optimizer_states"])
        assert [result.scenario.scheduler.options for result in found] == [
            {},
            {"cpu_ratio": 0.5},
            {"update_stride": 3, "cpu_ratio": 0.5},
        ]

    def test_given_options_are_not_dropped(self) -> None:
        with pytest.raises(InputError, match="unknown key 'update_stride' in scheduler"):
            compare(scenario(), [{"name": "zero3_offload", "update_stride": 2}])
        strides = [{"name": "deep_optimizer_states", "update_stride": k} for k in (2, 3)]
        assert compare(scenario(), strides).labels == ["update_stride 2", "update_stride 3"]

    def test_kept_options_still_point_to_the_file(self, file: Path) -> None:
        file.write_text(yaml.safe_dump(scenario({"name": "zero3_offload", "cpu_ratio": 7}), sort_keys=False))
        with pytest.raises(InputError, match=f"{file}:{line_of(file, 'cpu_ratio')}: "):
            compare(file, ["zero3_offload_async_grads"])
        with pytest.raises(InputError, match=r"^scheduler.cpu_ratio: found 8"):
            compare(file, [{"name": "zero3_offload_async_grads", "cpu_ratio": 8}])
        with pytest.raises(InputError, match="did you mean 'zero3_offload'"):
            compare(file, ["zero3_ofload"])

    def test_scenarios(self, file: Path) -> None:
        other = load_scenario(file, ["name=wide", "model.hidden=128"])
        assert compare([file, other]).labels == ["small", "wide"]
        assert compare([file, other], ["no_offload", "zero3_offload"]).labels == [
            "small, no_offload",
            "small, zero3_offload",
            "wide, no_offload",
            "wide, zero3_offload",
        ]
        assert compare([file, file], labels=["a", "b"]).labels == ["a", "b"]

    def test_what_does_not_fit_has_no_speedup(self, file: Path) -> None:
        huge = load_scenario(file, ["model.hidden=65536", "model.ffn_hidden=1e6", "name=huge", "model.layers=100"])
        found = compare([huge, file])
        assert found.speedups == [None, 1.0]
        assert found.summary()["iteration_s"].isna().tolist() == [True, False]
        assert "huge: does not fit" in repr(found)
        assert found.plot().get_axes()

    def test_labels_tell_apart(self) -> None:
        same = [load_scenario(scenario())] * 2
        assert default_labels(same) == ["zero3_offload", "zero3_offload (2)"]

    def test_refuses_nonsense(self) -> None:
        with pytest.raises(ValueError, match="nothing to compare"):
            Comparison([], [])
        with pytest.raises(ValueError, match="must be 2 different names"):
            compare([scenario(), scenario()], labels=["a", "a"])


def test_with_scheduler_keeps_the_rest(file: Path) -> None:
    before = load_scenario(file)
    after = with_scheduler(before, "no_offload")
    assert (after.model, after.training, after.name, after.folder) == (
        before.model,
        before.training,
        before.name,
        before.folder,
    )
    assert before.scheduler.name == "zero3_offload"
    assert with_scheduler(before, {"cpu_ratio": 0.25}).scheduler.options == {"cpu_ratio": 0.25}


# Schedulers of other packages

PLUGIN = '''
from offsim.schedulers import ScheduleOptions, TrainingSchedule


class MyOptions(ScheduleOptions):
    pause: float = 0.5


class Mine(TrainingSchedule):
    """Waits before it updates."""

    name = "mine"
    Options = MyOptions
    optimizer_home = "gpu"

    def gradient(self, rank, bucket, first, last):
        yield rank.elementwise(rank.reduce_stream, "d2d", 6 * bucket.elements, "add gradients")

    def before_update(self, rank):
        yield from ()

    def update(self, rank):
        yield rank.launch("pause", self.options.pause)
        yield from self.update_resident(rank, self.subgroups)


not_a_scheduler = 3
'''

USE = """
import json, sys
import offsim
from offsim.schedulers import available_schedulers
print(json.dumps(available_schedulers()))
for name in sys.argv[2:]:
    source = json.loads(sys.argv[1])
    source["scheduler"] = {"name": name}
    try:
        result = offsim.simulate(source)
        print(name, result.durations["update"])
    except offsim.InputError as error:
        print(error)
try:
    source["scheduler"] = {"name": "mine", "paus": 1}
    offsim.simulate(source)
except offsim.InputError as error:
    print(error)
"""


def test_schedulers_of_other_packages(tmp_path: Path) -> None:
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    info = tmp_path / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[offsim.schedulers]\n"
        "mine = my_plugin:Mine\n"
        "broken = my_plugin_that_is_missing:Gone\n"
        "number = my_plugin:not_a_scheduler\n"
        "zero3_offload = my_plugin:Mine\n"
    )
    command = [sys.executable, "-c", USE, json.dumps(scenario()), "mine", "zero3_offload", "broken", "number", "mina"]
    root = str(Path(offsim.__file__).parents[1])
    found = subprocess.run(
        command, env={"PYTHONPATH": f"{root}:{tmp_path}"}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    names, mine, built_in, broken, number, unknown, option = found.stdout.splitlines()
    assert json.loads(names) == [*BUILT_IN, "broken", "mine", "number"]
    assert mine.split()[0] == "mine"
    assert 0.5 < float(mine.split()[1]) < 0.6
    assert not 0.5 < float(built_in.split()[1]) < 0.6  # a built-in name cannot be taken over
    assert broken.startswith("scheduler 'broken' (my_plugin_that_is_missing:Gone of my-plugin) cannot be loaded: ")
    assert "ModuleNotFoundError" in broken
    assert number == "scheduler 'number' (my_plugin:not_a_scheduler of my-plugin) is not a subclass of " + (
        "offsim.schedulers.TrainingSchedule (see docs/write_a_scheduler.md)"
    )
    assert unknown == "unknown scheduler 'mina'; did you mean 'mine'?"
    assert option == "unknown key 'paus' in scheduler; did you mean 'pause'?"


def test_built_in_schedulers_are_found_by_their_names() -> None:
    for name in available_schedulers():
        assert find_scheduler(name).name == name


def test_stretched_activities_take_so_many_times_as_long() -> None:
    before, after = (simulate(scenario("zero3_offload"), stretch=stretch) for stretch in (None, {"cpu_adam": 3.0}))
    alone = [result.timeline.groupby("activity")["alone_s"].sum() for result in (before, after)]
    assert alone[1]["cpu_adam"] == pytest.approx(3 * alone[0]["cpu_adam"])
    assert alone[1].drop("cpu_adam").to_dict() == pytest.approx(alone[0].drop("cpu_adam").to_dict())
    assert after.durations["update"] > before.durations["update"]
    assert after.durations["backward"] == pytest.approx(before.durations["backward"])


@pytest.mark.parametrize("times", [0, -1.0, float("nan"), float("inf")])
def test_activities_cannot_be_stretched_to_nothing(times: float) -> None:
    with pytest.raises(InputError, match=r"stretch of 'cpu_adam': found .*, expected a number above 0"):
        simulate(scenario("zero3_offload"), stretch={"cpu_adam": times})


@pytest.mark.parametrize("source", [scenario("deep_optimizer_states"), "dos_20b_4xh100"], ids=["small", "20B"])
def test_cpu_work_that_costs_nothing_leaves_the_rest(source: Any) -> None:
    """Its rate of host memory is 1e17 times that of a copy, which is at work at the same time."""
    free = {"memory_bytes_per_s": 1e27, "adam_params_per_s": 1e26, "cores": 10}
    overrides = [f"hardware_changes.host.{key}={value}" for key, value in free.items()]
    one, every = (simulate(source, overrides, all_ranks=all_ranks) for all_ranks in (False, True))
    assert one.durations == pytest.approx(every.durations)
    update = one.limits_s["update"]
    assert update.get("CPU Adam", 0.0) < 1e-6 * one.durations["update"]
    assert sum(update.values()) == pytest.approx(one.durations["update"])
