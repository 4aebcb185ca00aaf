"""A sweep gives the same table however it is run."""

import pandas as pd
import pytest

import offsim
from offsim import InputError
from offsim.study import read_results
from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep
from tests.small_scenarios import scenario
from tests.study.small_sweeps import small_sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "results"
    return folder, offsim.sweep(small_sweep(), out=folder, jobs=1)


def test_rows_are_what_single_simulations_say(swept):
    _, table = swept
    assert list(table["scheduler.update_stride"].fillna(0)) == [0, 0, 2, 2, 3, 3]
    for row in table.to_dict("records"):
        scheduler = {"name": row["scheduler.name"]}
        if scheduler["name"] == "deep_optimizer_states":
            scheduler["update_stride"] = int(row["scheduler.update_stride"])
        changes = {"link": {"h2d_bytes_per_s": row["hardware_changes.link.h2d_bytes_per_s"]}}
        result = offsim.simulate({**scenario(scheduler), "hardware_changes": changes})
        figures = {name: value for name, value in result.figures().items() if not name.startswith("cost_")}
        assert {name: row[name] for name in figures} == figures
        assert row["forward_limited_by"] == next(iter(result.limits_s["forward"]))
        assert row["gpu_capacity_bytes"] == result.peaks[0].capacity_bytes


def test_a_price_may_go_with_the_hardware():
    prices = {"hardware_changes.link.h2d_bytes_per_s": ["x1", "x2"], "price_per_gpu_hour": [2, 3]}
    table = offsim.sweep({"base": {**scenario(), "name": "small"}, "axes": {"machine": {"zip": prices}}}, jobs=1)
    result = offsim.simulate(scenario())
    assert table["cost_per_1e9_tokens"][0] == pytest.approx(2 * result.gpus * 1e9 / 3600 / result.tokens_per_s)
    assert table["cost_per_iteration"].tolist() == pytest.approx(
        [price * result.gpus * time / 3600 for price, time in zip([2, 3], table["iteration_s"], strict=True)]
    )
    assert table["notes"].isna().all()


def test_a_part_and_a_value_of_one_section_are_both_changed():
    axes = {"hardware_changes.link": ["pcie5x16"], "hardware_changes.link.copy_latency_s": [2e-5]}
    table = offsim.sweep({"base": scenario(), "axes": axes}, jobs=1)
    assert table["error"].isna().all()
    assert table["hardware"][0].startswith("jlse-4xh100 with link pcie5x16 (")
    assert table["hardware"][0].endswith(", link.copy_latency_s 2e-05")


def test_the_number_of_processes_does_not_matter(swept, tmp_path):
    folder, table = swept
    again = offsim.sweep(small_sweep(), out=tmp_path / "other", jobs=2)
    pd.testing.assert_frame_equal(table, again)
    assert (folder / "results.parquet").read_bytes() == (tmp_path / "other" / "results.parquet").read_bytes()
    assert read_results(folder).attrs["axes"] == ["scenario", *small_sweep()["axes"]]


def test_results_are_not_overwritten(swept):
    folder, table = swept
    with pytest.raises(InputError, match="results of a sweep of small; --resume continues it"):
        offsim.sweep(small_sweep(), out=folder)
    pd.testing.assert_frame_equal(read_results(folder), table)


def test_points_that_fail_and_that_do_not_fit_are_rows(tmp_path):
    spec = {
        "base": scenario(hardware="workstation-rtx4090", training={"data_parallel": 1}),
        "axes": {
            "training.global_batch": [4, 6],
            "training.micro_batch": [4],
            "training.data_parallel": [1, 2],
            "hardware_changes.gpu.memory_bytes": ["x1", "x0", "x0.075"],
        },
        "skip": [{"training.global_batch": 6, "hardware_changes.gpu.memory_bytes": ["x0", "x0.075"]}],
    }
    table = offsim.sweep(spec, out=tmp_path, jobs=2)
    wrong = "training.global_batch: found {}, expected a multiple of micro_batch x data_parallel (4 x {})"
    errors = table["error"].fillna("")
    assert errors.iloc[0] == ""
    assert table["fits"].iloc[0]
    assert errors.iloc[1].startswith("gpu.memory_bytes: found 0.0, expected more than 0")
    assert table["verdict"].iloc[2].startswith("does not fit: GPU 0 memory")
    assert not table["fits"].iloc[2]
    assert pd.isna(table["iteration_s"].iloc[2])
    assert list(errors.iloc[3:6]) == [wrong.format(4, 2)] * 3
    assert list(errors.iloc[6:]) == [wrong.format(6, 1), wrong.format(6, 2)]
    assert table["error"].notna().sum() == table["fits"].isna().sum() == 6
    assert offsim.sweep(spec, out=tmp_path, resume=True).equals(table)


def test_a_point_that_only_the_simulation_refuses_is_a_row():
    base = scenario(hardware="workstation-rtx4090", training={"global_batch": 64, "data_parallel": 64})
    table = offsim.sweep({"base": base}, jobs=1)
    assert "has no network" in table["error"].iloc[0]


@pytest.mark.parametrize(("rates", "column"), [([10**20, 10**9], [1e20, 1e9]), (["x2", 10**20], ["x2", str(10**20)])])
def test_whole_numbers_beyond_64_bits_are_values(rates, column):
    name = "hardware_changes.link.h2d_bytes_per_s"
    table = offsim.sweep({"base": scenario(), "axes": {name: rates}}, jobs=1)
    assert list(table[name]) == column
    assert table["error"].isna().all()


def test_equal_points_are_simulated_once(tmp_path):
    plan = read_sweep(small_sweep(scheduler__cpu_ratio=[1, 1.0]))
    first = run_sweep(plan, tmp_path / "out", jobs=1)
    assert (first.simulated, first.known, first.done) == (6, 0, 12)
    again = run_sweep(plan, tmp_path / "out", jobs=1, resume=True)
    assert (again.simulated, again.known, again.done) == (0, 12, 12)
    table = read_results(tmp_path / "out")
    assert len(table) == 12
    assert table["point_id"].nunique() == 6


def test_columns_that_axes_and_figures_share(tmp_path):
    axes = {"hardware": ["jlse-4xh100", "gh200"], "hardware_changes.link.copy_latency_s": [1e-5]}
    table = offsim.sweep({"base": scenario(training={"data_parallel": 1}), "axes": axes}, jobs=1)
    assert list(table["hardware"]) == ["jlse-4xh100", "gh200"]
    assert list(table["hardware_name"]) == [f"{name} with link.copy_latency_s 1e-05" for name in table["hardware"]]


def test_too_many_points_and_none_are_refused():
    sweep = small_sweep(scheduler__cpu_ratio={"from": 0, "to": 1, "count": 2_000})
    sweep["axes"]["model.layers"] = {"from": 1, "to": 3000, "step": 1}
    with pytest.raises(InputError, match=r"^the sweep has more than 100,000 points; allow more with --max-points$"):
        offsim.sweep(sweep)
    with pytest.raises(InputError, match="more than 5 points"):
        offsim.sweep(small_sweep(), max_points=5)
    with pytest.raises(InputError, match="no points"):
        offsim.sweep({"base": scenario(), "axes": {"model.layers": [1]}, "skip": [{"model.layers": 1}]})
