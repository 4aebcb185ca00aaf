"""Tuning: what it finds is what simulating everything finds, and what measured runs bear out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from small_scenarios import scenario, small_buckets

from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.platform.profiles import scenario_profile
from offsim.scenario import load_scenario
from offsim.study.tuning.space import candidates, values_of
from offsim.study.tuning.tune import Outcome, Question, Tuning, evaluated, tune
from offsim.study.tuning.tuning_table import upgrades_table
from offsim.study.tuning.upgrades import UPGRADES, upgraded, upgrades
from offsim.validation.table import SHIPPED_RUNS, TIMES, MeasuredRun, read_runs

SMALL = scenario(
    {"name": "deep_optimizer_states", "update_stride": 3},
    training={"global_batch": 8, "subgroup_size": 5_000},
)
VALUES = {"subgroup_size": [5_000, 20_000], "update_stride": [2, 3, 5], "micro_batch": [1, 2]}


@cache
def enumerated(objective: Any) -> list[Outcome]:
    chosen = load_scenario(SMALL)
    grow = objective == "tokens_per_s"
    values = values_of(chosen, Question.over, VALUES, grow)
    with small_buckets():
        return [evaluated(candidate, Question.headroom) for candidate in candidates(chosen, values, grow)]


@pytest.mark.parametrize("objective", ["iteration_time", "tokens_per_s"])
@pytest.mark.parametrize("fastest", [1, 7])
@pytest.mark.parametrize("with_front", [False, True])
def test_what_is_found_is_what_enumerating_finds(objective: Any, fastest: int, with_front: bool) -> None:
    with small_buckets():
        question = Question(values=VALUES, objective=objective, fastest=fastest, with_front=with_front)
        everything = Tuning(question, evaluated(next(iter(candidates(load_scenario(SMALL), {}, False))), 0.0))
        everything.outcomes = enumerated(objective)
        found = tune(SMALL, question)
    assert len(found.outcomes) + found.ruled_out == len(everything.outcomes)
    assert found.left_out == 0
    assert speeds(found.fastest) == speeds(everything.fastest)
    if with_front:
        assert [(o.tokens_per_s, o.gpu_bytes) for o in found.front] == [
            (o.tokens_per_s, o.gpu_bytes) for o in everything.front
        ]


def speeds(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.tokens_per_s for outcome in outcomes]


def test_bounds_spare_most_simulations_of_a_real_model() -> None:
    found = tune("zero3_3b_rtx4090")
    assert found.best is not None
    assert found.best.tokens_per_s >= found.given.tokens_per_s
    assert found.ruled_out > len(found.outcomes)


def test_the_budget_bounds_what_is_simulated_and_what_is_left_out() -> None:
    with small_buckets():
        limited = tune(SMALL, Question(values=VALUES, budget=5))
    everything = enumerated("iteration_time")
    assert len(limited.outcomes) == 5
    assert limited.left_out > 0
    unseen = [o for o in everything if o.settings not in [seen.settings for seen in limited.outcomes]]
    ruled_out = len(unseen) - limited.left_out
    assert ruled_out == limited.ruled_out
    assert limited.best is not None
    assert max(speeds(unseen)) <= max(limited.left_out_tokens_per_s, limited.best.tokens_per_s)


def test_headroom_keeps_memory_free() -> None:
    tight = tune("dos_20b_4xh100", Question(over=("scheduler", "cpu_ratio"), headroom=0.5))
    capacity = scenario_profile(load_scenario("dos_20b_4xh100")).gpu.memory_bytes
    assert tight.best is not None
    assert all(outcome.gpu_bytes <= capacity / 2 for outcome in tight.front)
    assert any(not outcome.fits for outcome in tight.outcomes) or tight.ruled_out


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
    assert {o.settings["update_stride"] for o in found.fitting} in ({2, 50}, {2, 60})
    table = found.table
    assert table["tokens_per_s"].tolist() == speeds(found.fitting)
    assert table.loc[table["on_front"], "gpu_peak_bytes"].tolist() == [o.gpu_bytes for o in found.front]
    assert table.attrs["axes"] == ["scheduler", "update_stride"]


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


def test_more_gpu_memory_buys_what_does_not_fit_without() -> None:
    question = Question(over=("scheduler",))
    tuning = tune("dos_70b_dgx_h200", question)
    bought = upgrades(tuning)
    now, then = tuning.best, {upgrade.name: upgrade.best for upgrade in bought}["GPU memory x2"]
    assert now is not None
    assert then is not None
    assert (now.settings["scheduler"], then.settings["scheduler"]) == ("deep_optimizer_states", "no_offload")
    assert then.tokens_per_s > now.tokens_per_s
    table = upgrades_table(tuning, bought)
    assert table.index.tolist() == ["as it is", *UPGRADES]
    assert table["gain"].tolist() == [t / now.tokens_per_s for t in table["tokens_per_s"]]
    assert table.loc["GPU memory x2", "tokens_per_s"] == then.tokens_per_s


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


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--over", "update_strid"], "cannot tune over 'update_strid'; did you mean 'update_stride'?"),
        (["--over", ""], "cannot tune over ''; expected one of"),
        (["--try", "cpu_ratio=[1"], "--try 'cpu_ratio=[1': not valid YAML"),
        (["--try", "update_stride"], "expected DIMENSION=VALUE,VALUE,..., such as update_stride=2,3"),
        (["--try", "update_stride="], "update_stride: found no values, expected some"),
        (["--try", "update_stride=1"], "scheduler.update_stride: found 1, expected at least 2"),
        (["--try", "cpu_ratio=a"], "scheduler.cpu_ratio: found 'a', expected a number"),
        (["--try", "micro_batch=3"], "expected a multiple of micro_batch x data_parallel (3 x 4)"),
        (["--try", "scheduler=zero3"], "unknown scheduler 'zero3'"),
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
    assert "cannot tune over 'update_stride': it is no option of zero3_offload" in capsys.readouterr().err


def test_an_unknown_objective_is_refused_in_python_too() -> None:
    with pytest.raises(InputError, match="found 'speed', expected iteration_time or tokens_per_s"):
        Question(objective="speed")  # type: ignore[arg-type]


def test_a_worker_that_dies_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("offsim.cli.tuning.tune", lambda scenario, question, mapper: list(mapper(os._exit, [1])))
    assert main(["tune", "zero3_3b_rtx4090", "--jobs", "2"]) == 2
    assert capsys.readouterr().err == "Error: a worker process died (out of memory?); --jobs 1 needs none\n"


def test_an_error_in_another_process_is_the_same_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "dos_20b_4xh100", "--jobs", "2", "--try", "cpu_ratio=7"]) == 2
    assert "scheduler.cpu_ratio: found 7, expected at most 1" in capsys.readouterr().err


def test_processes_do_not_change_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
