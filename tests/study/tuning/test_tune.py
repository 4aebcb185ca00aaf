"""Tuning: what it finds is what simulating everything finds, and what measured runs bear out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
from pydantic import Field

import offsim
from offsim.cli import main
from offsim.programs.schedule import UNCLIPPED
from offsim.results import machines
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario, scenario_profile
from offsim.schedulers.base import ScheduleOptions
from offsim.schedulers.no_offload import NoOffload
from offsim.schedulers.registry import BUILT_IN, available_schedulers
from offsim.study.tuning.space import Candidate, Space
from offsim.study.tuning.tune import Outcome, Question, simulate_all, simulated, tune
from offsim.study.tuning.upgrades import UPGRADES, upgraded, upgrades, upgrades_table
from offsim.validation.run_table import SHIPPED_RUNS, TIMES, MeasuredRun, read_runs
from tests.small_scenarios import scenario, small_buckets
from tests.study.small_sweeps import die_elsewhere

SMALL = scenario(
    {"name": "deep_optimizer_states", "update_stride": 3},
    training={"global_batch": 8, "subgroup_size": 5_000},
)
NAMES = ["no_offload", "zero3_offload", "zero3_offload_async_grads", "deep_optimizer_states"]
VALUES = {"subgroup_size": [5_000, 20_000], "update_stride": [2, 3, 5], "micro_batch": [1, 2]}


@pytest.mark.parametrize("objective", ["iteration_time", "tokens_per_s"])
def test_what_is_found_is_what_enumerating_finds(objective: Any) -> None:
    with small_buckets():
        found = tune(SMALL, Question(values={"scheduler": NAMES, **VALUES}, objective=objective))
        everything = [
            offsim.simulate(SMALL, [f"scheduler={scheduler}", *training])
            for training in trainings(objective)
            for scheduler in schedulers()
        ]
    assert len(found.outcomes) == len(everything) == 4 * (1 + 2 * 5 + 5 * 3)
    useful = (result for result in everything if result.fits and not result.run.unused)
    fitting = {rounded(result.tokens_per_s, result.gpu_peak_bytes) for result in useful}
    rows = [rounded(o.tokens_per_s, o.gpu_bytes) for o in found.fitting]
    assert rows == sorted(fitting, key=lambda one: (-one[0], one[1]))
    front = {a for a in fitting if not any(b[0] >= a[0] and b[1] <= a[1] and b != a for b in fitting)}
    assert {rounded(o.tokens_per_s, o.gpu_bytes) for o in found.front} == front


def rounded(*numbers: float) -> tuple[float, ...]:
    return tuple(float(f"{number:.9g}") for number in numbers)


def trainings(objective: str) -> Iterator[list[str]]:
    for size, micro_batch in product(VALUES["subgroup_size"], VALUES["micro_batch"]):
        batch = 8 * micro_batch if objective == "tokens_per_s" else 8
        training = {"subgroup_size": size, "micro_batch": micro_batch, "global_batch": batch}
        yield [f"training.{name}={value}" for name, value in training.items()]


def schedulers() -> Iterator[str]:
    yield "{name: no_offload}"
    for ratio in (0, 0.25, 0.5, 0.75, 1):
        for name in ("zero3_offload", "zero3_offload_async_grads"):
            yield f"{{name: {name}, cpu_ratio: {ratio}}}"
        for stride in VALUES["update_stride"]:
            yield f"{{name: deep_optimizer_states, cpu_ratio: {ratio}, update_stride: {stride}}}"


def test_all_that_declare_values_are_tried_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    class Options(ScheduleOptions):
        depth: int = Field(default=1, json_schema_extra={"try": [1, 2]})
        silent: int = 0

    class Mine(NoOffload):
        name = "mine"

    Mine.Options = Options
    monkeypatch.setitem(BUILT_IN, "mine", Mine)
    space = Space(load_scenario(SMALL), None, {"scheduler": ["mine", "no_offload"]}, False)
    assert space.dimensions == ["scheduler", "depth", "subgroup_size", "micro_batch"]
    settings = [(one.settings["scheduler"], one.settings.get("depth")) for one in space]
    assert settings[:3] == [("mine", 1), ("mine", 2), ("no_offload", None)]
    given = Space(load_scenario(SMALL), (), {"scheduler": ["mine"], "silent": [3, 4]}, False)
    assert [one.settings["silent"] for one in given] == [3, 4]


def test_schedulers_that_do_not_apply_are_skipped_with_reasons() -> None:
    found = tune("zero3_3b_rtx4090", Question(over=("scheduler",)))
    tried = {outcome.settings["scheduler"] for outcome in found.outcomes}
    assert tried.isdisjoint(found.skipped)
    assert tried | found.skipped.keys() == set(available_schedulers())
    assert all(found.skipped.values())
    assert f"{len(found.skipped)} schedulers skipped" in found.counts


def test_sizes_of_sub_groups_are_tried_only_where_they_matter() -> None:
    values = {"scheduler": ["slideformer", "zero3_offload"], "subgroup_size": [5_000, 20_000]}
    tried = [one.settings for one in Space(load_scenario(SMALL), (), values, False)]
    assert [one.get("subgroup_size") for one in tried if one["scheduler"] == "slideformer"] == [None]
    assert {one["subgroup_size"] for one in tried if one["scheduler"] == "zero3_offload"} == {5_000, 20_000}
    times = {
        simulate(SMALL, ["scheduler={name: slideformer}", f"training.subgroup_size={n}"]).iteration_s
        for n in (5_000, 20_000)
    }
    assert len(times) == 1


def test_a_budget_is_a_sample_of_all() -> None:
    with small_buckets():
        limited = tune(SMALL, Question(values=VALUES, budget=5))
        everything = tune(SMALL, Question(values=VALUES))
        generous = tune(SMALL, Question(values=VALUES, budget=len(everything.outcomes)))
    assert len(limited.outcomes) == 5
    assert limited.left_out == len(everything.outcomes) - 5
    simulated = [(outcome.scenario, outcome.same) for outcome in everything.outcomes]
    assert all((outcome.scenario, outcome.same) in simulated for outcome in limited.outcomes)
    assert (generous.outcomes, generous.left_out) == (everything.outcomes, 0)


def test_headroom_keeps_memory_free() -> None:
    tight = tune("dos_20b_4xh100", Question(over=("scheduler", "cpu_ratio"), headroom=0.5))
    capacity = scenario_profile(load_scenario("dos_20b_4xh100")).gpu.memory_bytes
    assert tight.best is not None
    assert all(outcome.gpu_bytes <= capacity / 2 for outcome in tight.front)
    assert not all(outcome.fits for outcome in tight.outcomes)


def campaign(hardware: str, model: str, **cells: str) -> list[MeasuredRun]:
    """Measured runs that differ in scheduler, stride and ratio alone."""
    wanted = {"hardware": hardware, "model": model, **cells}
    return [r for r in read_runs(SHIPPED_RUNS).runs if all(r.cell(key) == value for key, value in wanted.items())]


def measured_s(run: MeasuredRun) -> float:
    return sum(run.measured[column] for column in TIMES) / 1e3


@pytest.mark.parametrize(
    ("runs", "question"),
    [
        (
            campaign("polaris-4xa100-numa-bound", "7B", series="7B-scale-gaps-a100"),
            Question(over=("scheduler",), values={"update_stride": [2, 3, 4, 6, 8, 10]}),
        ),
        (
            campaign("polaris-4xa100-numa-bound", "13B", series="13B-scale-gaps-a100"),
            Question(over=("scheduler",), values={"update_stride": [2, 4]}),
        ),
        (
            campaign("jlse-4xh100", "20B", series="20B-scale-twinflow"),
            Question(over=("scheduler",), values={"cpu_ratio": [0.7, 1.0], "update_stride": [2]}),
        ),
    ],
    ids=["strides 7B", "strides 13B", "ratios 20B"],
)
def test_the_choice_costs_at_most_2_percent_by_the_measured_times(runs: list[MeasuredRun], question: Question) -> None:
    offloading = ["zero3_offload", "zero3_offload_async_grads", "deep_optimizer_states"]  # all that was measured
    values = {**question.values, "scheduler": offloading}
    assert len(runs) >= 4
    found = tune(runs[0].scenario, Question(over=(), values=values)).best
    assert found is not None
    chosen = [measured_s(r) for r in runs if settings_of(r, values) == settings(found, values)]
    assert chosen
    assert max(chosen) <= 1.02 * min(map(measured_s, runs))


def settings_of(run: MeasuredRun, values: dict[str, Any]) -> dict[str, Any]:
    scheduler = run.scenario.scheduler
    return {"scheduler": scheduler.name} | {k: v for k, v in scheduler.options.items() if k in values}


def settings(found: Outcome, values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.settings.items() if key in values}


def test_equal_settings_are_one_and_the_table_has_all() -> None:
    with small_buckets():
        values = {"update_stride": [2, 50, 60], "scheduler": ["deep_optimizer_states"]}
        found = tune(SMALL, Question(over=(), values=values))  # fewer sub-groups than 50: none for the GPU
        assert {outcome.settings["update_stride"] for outcome in found.outcomes} == {2, 50, 60}
    assert [o.settings["update_stride"] for o in found.fitting] == [2]  # the others fetch nothing
    assert [bool(o.unused) for o in found.outcomes] == [False, True, True]
    table = found.table
    assert table["tokens_per_s"].tolist() == [outcome.tokens_per_s for outcome in found.fitting]
    assert table.loc[table["on_front"], "gpu_peak_bytes"].tolist() == [o.gpu_bytes for o in found.front]
    assert table.attrs["axes"] == ["scheduler", "update_stride"]


def test_of_settings_that_simulate_the_same_the_plainest_stays() -> None:
    base = scenario("zero3_offload", training={"subgroup_size": 5_000})
    question = Question(
        over=(), values={"scheduler": ["deep_optimizer_states"], "cpu_ratio": [0], "update_stride": [3, 2]}
    )
    with small_buckets():
        found = tune(base, question)
    (row,) = found.fitting
    assert row.scenario.scheduler.options == {"cpu_ratio": 0, "update_stride": 2}  # the default
    assert row.settings == {"scheduler": "deep_optimizer_states", "cpu_ratio": 0}  # no stride does anything


def test_what_does_not_fit_is_in_the_table_without_times() -> None:
    found = tune("dos_20b_4xh100", Question(over=("cpu_ratio",), headroom=0.3))
    table = found.table
    outside = table[~table["fits"]]
    assert len(outside) == len(table) - len(found.fitting) > 0
    assert outside["iteration_s"].isna().all()
    assert set(outside["limited_by"]) == {"memory"}  # as in a sweep's table
    assert set(table["scheduler"]) == {"deep_optimizer_states"}  # though it is no dimension
    (front,) = (line for line in found.plot_front().axes[0].lines if line.get_gid() == "front")
    assert len(front.get_xydata()) == len(found.front)
    assert repr(found).startswith("dos_20b_4xh100: ")


def test_upgrades_multiply_what_the_scenario_has_already_changed() -> None:
    base = load_scenario("dos_20b_4xh100", ["hardware_changes.link.h2d_bytes_per_s=x3"])
    before = scenario_profile(load_scenario("dos_20b_4xh100")).link
    after = scenario_profile(upgraded(base, "PCIe x2")).link
    assert after.h2d_bytes_per_s == pytest.approx(6 * before.h2d_bytes_per_s)
    assert after.d2h_bytes_per_s == pytest.approx(2 * before.d2h_bytes_per_s)
    assert after.uplink_bytes_per_s is None


def test_a_faster_link_leaves_what_the_cpu_stages() -> None:
    base = load_scenario("zero3_3b_rtx4090")
    before = scenario_profile(base).link
    for after in (upgraded(base, "PCIe x2"), load_scenario("zero3_3b_rtx4090", ["link=pcie5x16"])):
        link = scenario_profile(after).link
        for name in ("h2d_bytes_per_s", "d2h_bytes_per_s", "duplex_bytes_per_s", "uplink_bytes_per_s"):
            assert getattr(link, name) == 2 * getattr(before, name)
        assert link.pageable_h2d_bytes_per_s == before.pageable_h2d_bytes_per_s
        assert link.pageable_d2h_bytes_per_s == before.pageable_d2h_bytes_per_s


def test_more_gpu_memory_buys_what_does_not_fit_without() -> None:
    question = Question(values={"scheduler": NAMES}, over=("scheduler",))  # of the same result: no stale parameters
    tuning = tune("dos_70b_dgx_h200", question)
    bought = upgrades(tuning)
    now, then = tuning.best, {upgrade.name: upgrade.best for upgrade in bought}["GPU memory x2"]
    assert now is not None
    assert then is not None
    assert now.settings["scheduler"] != "no_offload"
    assert then.settings["scheduler"] == "no_offload"
    assert then.tokens_per_s > now.tokens_per_s
    table = upgrades_table(tuning, bought)
    assert table.index.tolist() == ["as it is", *UPGRADES]
    # a DGX H200's GPUs share no port
    assert bought[0].scales == ("link.h2d_bytes_per_s", "link.d2h_bytes_per_s", "link.duplex_bytes_per_s")
    assert table["gain"].tolist() == [t / now.tokens_per_s for t in table["tokens_per_s"]]
    assert table.loc["GPU memory x2", "tokens_per_s"] == then.tokens_per_s


def test_an_upgrade_buys_what_tuning_everything_with_it_finds() -> None:
    question = Question(values={"subgroup_size": [10**9], "micro_batch": [2, 4], "update_stride": [2, 4]})
    tuning = tune("zero3_3b_rtx4090", question)
    assert tuning.best is not None
    for upgrade in upgrades(tuning):
        anew = tune(upgraded(tuning.given.scenario, upgrade.name), question).best
        assert anew is not None
        assert upgrade.best is not None
        assert upgrade.best.tokens_per_s == max(anew.tokens_per_s, tuning.best.tokens_per_s)


def test_what_an_upgrade_adds_may_stay_unused() -> None:
    """Faster CPU work takes so much host memory bandwidth from the copies beside it that the iteration is longer."""
    scenario = load_scenario("zero3_3b_rtx4090", ["training.micro_batch=4", "scheduler.name=deep_optimizer_states"])
    question = Question(over=(), values={"subgroup_size": [200_000_000], "update_stride": [2]})
    tuning = tune(scenario, question)
    with_cores = tune(upgraded(scenario, "CPU cores x2"), question)
    assert tuning.best is not None
    assert with_cores.best is not None
    assert with_cores.best.iteration_s > tuning.best.iteration_s
    bought = {upgrade.name: upgrade.best for upgrade in upgrades(tuning)}
    assert bought["CPU cores x2"] == tuning.best


def test_settings_that_place_the_same_are_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Mock(side_effect=simulate)
    monkeypatch.setattr("offsim.study.tuning.tune.simulate", calls)
    with small_buckets():
        found = tune(SMALL, Question(over=(), values={"cpu_ratio": [0.5, 0.501, 1]}))
    assert calls.call_count == 2
    half, same, whole = found.outcomes
    assert (half.settings, same.settings) == ({"cpu_ratio": 0.5}, {"cpu_ratio": 0.501})
    assert same == replace(half, settings=same.settings, scenario=same.scenario)
    assert same.scenario.scheduler.options["cpu_ratio"] == 0.501
    assert (whole.same, whole.settings) == (found.given.same, {"cpu_ratio": 1})


def test_upgrades_run_on_a_tape_as_on_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(machines, "_engine_s", machines.COMPILES_S)
    upgraded_to = [upgraded(load_scenario("dos_20b_4xh100"), name) for name in UPGRADES]
    candidates = [Candidate({"upgrade": number}, one) for number, one in enumerate(upgraded_to)]
    alone = [simulated(candidate, 0.05) for candidate in candidates]
    with patch("offsim.results.machines.run_scenario", side_effect=AssertionError):
        assert simulate_all(candidates, 0.05, map) == alone


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--over", "scheduler,update_strid"], "cannot tune over 'update_strid'; did you mean 'update_stride'?"),
        (["--over", ""], "cannot tune over '' under deep_optimizer_states; expected one of"),
        (["--try", "cpu_ratio=[1"], "--try 'cpu_ratio=[1': not valid YAML"),
        (["--try", "update_stride"], "expected DIMENSION=VALUE,VALUE,..., such as micro_batch=1,2"),
        (["--try", "update_stride="], "update_stride: found no values, expected some"),
        (["--try", "update_stride=1"], "scheduler.update_stride: found 1, expected at least 2"),
        (["--try", "cpu_ratio=[1]"], "scheduler.cpu_ratio: found a list, expected a number"),
        (["--try", "cpu_ratio=a"], "scheduler.cpu_ratio: found 'a', expected a number"),
        (["--try", "micro_batch=3"], "expected a multiple of micro_batch x data_parallel (3 x 4)"),
        (["--try", "scheduler=zero3"], "unknown scheduler 'zero3'"),
        (["--try", "micro_batch={}", "--objective", "tokens_per_s"], "micro_batch: found a section of keys, expected"),
        (["--try", "micro_batch=[1,2],[3]", "--objective", "tokens_per_s"], "micro_batch: found a list, expected"),
        (["--try", "scheduler={}"], "unknown scheduler '{}'"),
        (["--budget", "0"], "--budget: found 0, expected at least 1"),
        (["--headroom", "1"], "--headroom: found 1, expected at least 0 and less than 1"),
        (["--objective", "speed"], "--objective: found 'speed', expected iteration_time or tokens_per_s"),
    ],
)
def test_what_is_wrong(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "dos_20b_4xh100", "--jobs", "1", *arguments]) == 2
    printed = capsys.readouterr()
    assert problem in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_an_option_that_the_scheduler_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "zero3_3b_rtx4090", "--jobs", "1", "--over", "update_stride"]) == 2
    assert "cannot tune over 'update_stride' under zero3_offload; expected one of: acti" in capsys.readouterr().err


def test_a_worker_that_dies_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("offsim.study.processes.START_AFTER_S", 0)
    here = [os.getpid()] * 2_000
    monkeypatch.setattr(
        "offsim.study.tuning.tune.tune", lambda scenario, question, mapper: list(mapper(die_elsewhere, here))
    )
    assert main(["tune", "zero3_3b_rtx4090", "--jobs", "2"]) == 2
    assert capsys.readouterr().err == "Error: a worker process died (out of memory?); --jobs 1 needs none\n"


def test_an_error_in_another_process_is_the_same_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("offsim.study.tuning.tune.PROCESSES_FROM_S", 0.0)
    assert main(["tune", "dos_20b_4xh100", "--jobs", "2", "--try", "cpu_ratio=7"]) == 2
    assert "scheduler.cpu_ratio: found 7, expected at most 1" in capsys.readouterr().err


def test_processes_do_not_change_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("offsim.study.tuning.tune.PROCESSES_FROM_S", 0.0)
    command = ["tune", "zero3_3b_rtx4090", "--over", "scheduler,micro_batch", "--json", str(tmp_path / "a.json")]
    texts, documents = [], []
    for jobs in ("1", "2"):
        assert main([*command, "--jobs", jobs]) == 0
        texts.append(capsys.readouterr().out)
        documents.append(json.loads((tmp_path / "a.json").read_text()))
    assert texts[0] == texts[1]
    assert documents[0] == documents[1]
    assert max(map(len, texts[0].splitlines())) <= 80
    for part in ("as given", "the fastest", "GPU memory x2", "limited by"):
        assert part in texts[0]
    best, keys = documents[0]["best"], documents[0]["deepspeed"]["keys"]
    assert best["iteration_s"] <= documents[0]["given"]["iteration_s"]
    assert keys["train_micro_batch_size_per_gpu"] == best["settings"]["micro_batch"]
    assert json.loads(re.search(r"^{$.*^}$", texts[0], re.DOTALL | re.MULTILINE)[0]) == keys  # type: ignore[index]


def test_options_without_effect_are_not_recommended(capsys: pytest.CaptureFixture[str]) -> None:
    """Of two sub-groups on the CPU a stride of 3 fetches none; without storage nothing is pipelined."""
    large = scenario("zero3_offload", training={"subgroup_size": 50_000})
    values = {
        "scheduler": ["zero3_offload_async_grads", "deep_optimizer_states", "zero_infinity"],
        "update_stride": [3, 4],
        "pipeline_read": [False, True],
    }
    with small_buckets():
        assert simulate(large).run.workload.subgroups[2:] == []
        found = tune({**large, "placement": {"optimizer": "host"}}, Question(over=(), values=values))
    assert {o.settings["scheduler"] for o in found.outcomes} == set(values["scheduler"])
    assert not any(o.settings.get("pipeline_read") for o in found.fitting)  # as fast, with larger buffers
    assert "deep_optimizer_states" not in {o.settings["scheduler"] for o in found.fitting}
    assert len(found.fitting) < len(found.outcomes)
    assert (
        main(["run", "dos_20b_4xh100", "--set", "training.subgroup_size=1e9", "--set", "scheduler.update_stride=8"])
        == 0
    )
    assert "update_stride 8 has no effect: none of 4 sub-groups off the GPU is" in capsys.readouterr().out


def test_keys_are_those_of_the_fastest_that_deepspeed_has() -> None:
    """Where the best is not DeepSpeed's, its keys are not printed as if they chose it."""
    question = Question(over=(), values={"scheduler": ["l2l", "zero3_offload", "zero3_offload_async_grads"]})
    found = tune("zero3_3b_rtx4090", question)
    assert found.best is not None
    assert found.best.settings == {"scheduler": "l2l"}
    assert found.best.exactness == UNCLIPPED
    stock = found.best_of_deepspeed
    assert stock is not None
    assert stock.settings == {"scheduler": "zero3_offload_async_grads"}
    assert stock.iteration_s == found.fitting[1].iteration_s
    assert tune("zero3_3b_rtx4090", Question(over=(), values={"scheduler": ["l2l"]})).best_of_deepspeed is None


def test_what_trains_something_else_is_left_out_unless_named_or_given() -> None:
    exact = tune("zero3_3b_rtx4090", Question(over=("scheduler",)))
    assert exact.skipped["roundpipe"].startswith("stale by 1 update")
    assert "deep_optimizer_states" not in exact.skipped  # a race, not a schedule's purpose
    assert not {"roundpipe", "zenflow", "megatrain"} & set(exact.table["scheduler"])
    named = tune(
        "zero3_3b_rtx4090", Question(values={"scheduler": ["zero3_offload", "roundpipe"]}, over=("scheduler",))
    )
    assert set(named.table["scheduler"]) == {"zero3_offload", "roundpipe"}
    given = tune(load_scenario("zero3_3b_rtx4090", ["scheduler.name=roundpipe"]), Question(over=("scheduler",)))
    assert {"roundpipe", "zenflow"} <= set(given.table["scheduler"])
    options = Question(over=("scheduler", "delayed_update"))
    scenario = load_scenario("zero3_3b_rtx4090", ["training.zero_stage=2", "scheduler.name=zero2_offload"])
    assert set(tune(scenario, options).table["delayed_update"].dropna()) == {False}
