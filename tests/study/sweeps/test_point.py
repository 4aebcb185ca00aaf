"""Points are known by their content: all that their result depends on, and nothing else."""

import json
from itertools import groupby
from unittest.mock import patch

import pytest

from offsim import InputError
from offsim.inputs.packaged import offsim_version
from offsim.results import machines
from offsim.schedulers.registry import BUILT_IN
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.study.sweeps import point
from offsim.study.sweeps.point import points
from offsim.study.sweeps.sweep_file import read_sweep
from tests.small_scenarios import scenario


def only(base, **axes):
    (found,) = points(read_sweep({"base": base, "axes": {name.replace("__", "."): [v] for name, v in axes.items()}}))
    assert found.task
    return found.id


DOS = {"name": "deep_optimizer_states", "update_stride": 2}


def test_the_same_simulation_has_the_same_id():
    plain = only(scenario())
    assert only({**scenario(), "name": "called something"}) == plain
    assert only(scenario(training={"global_batch": 8}), training__global_batch=4) == plain
    assert only(scenario({"name": "zero3_offload", "cpu_ratio": 1})) == plain  # the default
    assert only(scenario(), scheduler__cpu_ratio=1.0) == plain
    assert only(scenario("deep_optimizer_states"), scheduler__update_stride=2) == only(scenario(DOS))


def test_options_that_the_other_scheduler_does_not_know_are_dropped():
    dos = {**DOS, "cpu_ratio": 0.5}
    other = only(scenario(dos), scheduler__name="zero3_offload")
    assert other == only(scenario({"name": "zero3_offload", "cpu_ratio": 0.5}))
    assert only(scenario(dos), scheduler={"name": "zero3_offload"}) == only(scenario())


@pytest.mark.parametrize(
    "changed",
    [
        scenario(training={"global_batch": 8}),
        scenario(model={"layers": 5}),
        scenario("zero3_offload_async_grads"),
        scenario({"name": "zero3_offload", "cpu_ratio": 0.5}),
        scenario(hardware="gh200"),
        {**scenario(), "hardware_changes": {"link": {"h2d_bytes_per_s": 1e9}}},
        {**scenario(), "checkpoint": {"engine": "blocking"}},
        {**scenario(), "price_per_gpu_hour": 2},
    ],
)
def test_another_simulation_has_another_id(changed):
    assert only(changed) != only(scenario())


def test_the_profile_counts_not_its_name(tmp_path):
    def with_profile(text):
        (tmp_path / "mine.yaml").write_text(f"{{name: mine, extends: jlse-4xh100, validated: false, {text}}}")
        return only({**scenario(hardware="mine.yaml"), "folder": str(tmp_path)})

    plain = with_profile("link: {}")
    assert with_profile('description: "other words"') == plain
    assert with_profile("link: {copy_latency_s: {value: 1, unit: s, source: assumed}}") != plain


def test_the_version_counts(monkeypatch):
    before = only(scenario())
    monkeypatch.setattr(point, "offsim_version", lambda: "another")
    assert only(scenario()) != before


def test_points_of_one_scenario_follow_each_other():
    rates, ratios = [1e10, 2e10, 3e10], [0.5, 1]
    axes = {"hardware_changes.link.h2d_bytes_per_s": rates, "scheduler.cpu_ratio": ratios}
    made = list(points(read_sweep({"base": scenario(), "axes": axes})))
    assert [found.number for found in made] == [0, 2, 4, 1, 3, 5]
    assert [key for key, _ in groupby(found.task.scenario for found in made)] == [made[0].task[0], made[3].task[0]]
    wanted = [
        only(scenario(), hardware_changes__link__h2d_bytes_per_s=rate, scheduler__cpu_ratio=ratio)
        for rate in rates
        for ratio in ratios
    ]
    assert [found.id for found in sorted(made)] == wanted


def made(axes, scheduler="zero3_offload"):
    base = scenario(scheduler, training={"subgroup_size": 5_000})
    return [found.task for found in points(read_sweep({"base": base, "axes": axes}))]


def test_points_that_place_the_same_are_simulated_once():
    tasks = made({"scheduler.cpu_ratio": [0.5, 1, 0.501], "hardware_changes.link.h2d_bytes_per_s": [1e10, 2e10]})
    assert [tasks.index(task) for task in tasks] == [0, 0, 2, 2, 4, 5]
    assert len({task.scenario for task in tasks}) == 2
    alone = [outcome for task in tasks for outcome in point.simulate_tasks(offsim_version(), [task])]
    with patch.object(point, "simulate", side_effect=point.simulate) as simulated:
        assert point.simulate_tasks(offsim_version(), tasks) == alone
    assert simulated.call_count == 4


def test_a_placement_is_the_same_however_it_is_given():
    spelled = {"tier": "host", "share": 0.5}, {"tier": "gpu"}
    (told,) = made({"placement.optimizer": [[*spelled]]})
    assert [told] == made({"scheduler.cpu_ratio": [0.5]}) != made({"scheduler.cpu_ratio": [0.6]})
    assert [told] != made({"scheduler.cpu_ratio": [0.5], "scheduler.gpu_subgroups": ["first"]})
    strides = made({"scheduler.update_stride": [2, 3], "scheduler.cpu_ratio": [0.5]}, "deep_optimizer_states")
    assert len({*strides, told}) == 3


def test_a_schedule_that_is_registered_anew_is_run_anew(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(machines, "_engine_s", machines.COMPILES_S)

    def iteration_s(seconds):
        class Own(Zero3Offload):
            name = "own"

            def update(self, rank):
                yield rank.launch("think", seconds)
                yield from super().update(rank)

        monkeypatch.setitem(BUILT_IN, "own", Own)
        tasks = made({"hardware_changes.link.h2d_bytes_per_s": [1e10, 2e10, 3e10]}, "own")
        return [json.loads(found)["iteration_s"] for found in point.simulate_tasks(offsim_version(), tasks)]

    later = [seconds + 1 for seconds in iteration_s(1.0)]
    assert iteration_s(2.0) == pytest.approx(later)


def test_what_takes_long_is_handed_back(monkeypatch):
    monkeypatch.setattr(point, "RETURNS_AFTER_S", 0)
    tasks = made({"scheduler.cpu_ratio": [0.5, 1]})
    assert len(point.simulate_tasks(offsim_version(), tasks)) == 1
    with pytest.raises(InputError, match="expected another as where the sweep was started"):
        point.simulate_tasks("another", tasks)


def test_points_that_differ_in_hardware_alone_have_the_figures_of_the_engine(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(machines, "_engine_s", machines.COMPILES_S)
    monkeypatch.setattr(point, "RETURNS_AFTER_S", 60)
    tasks = made({"hardware_changes.link.h2d_bytes_per_s": [5e9, 1e10, 2e10]}, DOS)
    alone = [outcome for task in tasks for outcome in point.simulate_tasks(offsim_version(), [task])]
    with patch.object(point, "simulate", side_effect=AssertionError):
        assert point.simulate_tasks(offsim_version(), tasks) == alone
