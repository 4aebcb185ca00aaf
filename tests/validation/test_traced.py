"""Traces of the harness beside the simulation: on folders whose truth is known, and on a real one without a GPU."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from offsim.api import simulate
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.traces import read_trace
from offsim.validation.accounts import phase_accounts
from offsim.validation.folder import read_tables
from offsim.validation.markdown_report import make_report, worst_disagreement
from offsim.validation.predictions import validate_runs
from offsim.validation.run_table import COLUMN_OF, read_runs
from offsim.validation.side_by_side import pairs, plot_side_by_side, traced_iteration
from offsim.validation.traced import TracedIteration, last_iteration
from tests.calibration.harness_folders import PROFILE, SCHEDULES, annotation, scenario_of, write_harness
from tests.calibration.trace_files import GEMM, call, on_gpu, write_kineto

SLOWER = {"h2d": 1.5}
CPU_ONLY = Path(__file__).parents[2] / "notebooks" / "harness_cpu"
FILES = {"scatter": "a.png", "timeline": "b.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_harness(tmp_path_factory.mktemp("measured") / "harness", SLOWER)


def traced(folder: Path, schedule: str) -> TracedIteration:
    return last_iteration(read_trace(folder / "traces" / f"{schedule}.json.gz"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_trace_of_a_simulation_gives_back_its_phases_and_activities(folder, schedule):
    found = traced(folder, schedule)
    result = simulate(scenario_of(schedule), stretch=SLOWER)
    assert found.gpu
    assert list(found.phases["phase"]) == list(COLUMN_OF)
    assert found.phases["duration_s"].tolist() == pytest.approx(list(result.durations.values()), rel=1e-6)
    for account in phase_accounts(result.run, {}):
        compared = [pair for pair in pairs(found, account) if pair.measured_s > 1e-8]
        assert {pair.kind for pair in compared} == {a.kind for a in account.activities if a.alone_s > 0}
        for pair in compared:
            assert pair.measured_s == pytest.approx(pair.simulated_s, rel=1e-3), pair.kind
            if pair.measured.bytes:
                assert pair.measured.bytes == pytest.approx(pair.simulated.bytes, rel=1e-6)
            if pair.kind != "launch":
                assert pair.measured.count == pair.simulated.count


def test_streams_have_the_simulators_names(folder):
    found = traced(folder, "deep_optimizer_states_stride2").activities
    simulated = simulate(scenario_of("deep_optimizer_states_stride2")).timeline
    assert set(found["stream"]) == set(simulated["stream"])
    for stream, rows in simulated[simulated["subgroup"] >= 0].groupby("stream"):
        mine = found[(found["stream"] == stream) & (found["subgroup"] >= 0)]
        assert set(mine["subgroup"]) == set(rows.loc[rows["start_s"] >= 0, "subgroup"]), stream


def test_phases_end_with_the_compute_stream_and_gpu_work_belongs_to_where_it_was_launched(tmp_path):
    """The host is through with forward after 100 us and the GPU after 400 us, in backward's time on the host."""
    events = [
        annotation("forward", 1000, 100), annotation("backward", 1100, 700), annotation("step", 1800, 200),
        call("cudaLaunchKernel", 1010, 10, 1), on_gpu("kernel", GEMM, 1100, 300, 1),
        call("cudaLaunchKernel", 1110, 10, 2), on_gpu("kernel", GEMM, 1400, 200, 2),
        call("cudaStreamSynchronize", 1250, 350, 3),
    ]  # fmt: skip
    found = last_iteration(read_trace(write_kineto(tmp_path / "trace.json", events)))
    assert found.phases["duration_s"].tolist() == pytest.approx([4e-4, 4e-4, 2e-4])
    forward, backward = found.in_phase("forward"), found.in_phase("backward")
    seconds = {measured.kind: measured.seconds for measured in forward}
    assert seconds["compute"] == pytest.approx(3e-4)
    assert {m.kind: m.kernels for m in backward}["compute"] == pytest.approx({"gemm": 2e-4})
    # Python between the calls (90 us) counts as launching, the wait does not.
    assert seconds["launch"] == pytest.approx(110e-6)


def test_the_report_names_the_copies_that_were_made_slower(folder, tmp_path, capsys):
    report = tmp_path / "report.md"
    arguments = ["validate", str(folder), "--hardware", PROFILE, "--report", str(report), "--json", "-"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["profile"] == PROFILE
    assert summary["worst_runs"][0]["phase"] == "step"
    text = " ".join(report.read_text().split())
    assert f"hardware profile {PROFILE}, whatever the table names" in text
    worst = text.split("activity by activity")[1].split("## ")[0]
    assert "In step, furthest apart is copy H2D: measured" in worst
    assert "(1.50x)" in worst
    assert "Without a trace of the run" not in text
    assert (tmp_path / "report-timeline.png").stat().st_size > 10_000


def test_measured_stands_above_simulated_on_one_axis(folder):
    table, _ = read_tables(folder, PROFILE)
    found = worst_disagreement(validate_runs(table))
    measured, simulated = plot_side_by_side(found.traced, found.result, "x").axes
    assert measured.get_xlim() == simulated.get_xlim()
    assert measured.get_position().y0 > simulated.get_position().y1


def test_the_name_of_a_schedule_leads_to_no_other_folder(folder):
    table = read_runs(folder / "training.csv", PROFILE)
    run = table.runs[0]
    assert traced_iteration(table, run) is not None
    for name in ("../traces/zero3_offload", str(folder / "traces" / "zero3_offload"), "", ".."):
        assert traced_iteration(table, replace(run, cells={**run.cells, "schedule": name})) is None


def test_a_trace_without_phases_is_refused(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "harness")
    for path in (tmp_path / "harness" / "traces").iterdir():
        write_kineto(path)
    with pytest.raises(InputError, match="found no whole iteration, expected annotations forward, backward and step"):
        last_iteration(read_trace(path))
    report = tmp_path / "report.md"
    assert main(["validate", str(tmp_path / "harness"), "--hardware", PROFILE, "--report", str(report)]) == 2
    assert "expected annotations forward" in capsys.readouterr().err
    assert not report.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "column 'hardware': found 'cpu-only', measured without a GPU: no profile stands for it; --hardware"),
        (["--hardware", "jlse"], "--hardware 'jlse': unknown hardware profile 'jlse'"),
        (["--hardware", "./none.yaml"], "--hardware './none.yaml': no hardware profile at"),
    ],
)  # fmt: skip
def test_hardware_that_is_no_profile(arguments, message, complaint):
    assert message in complaint("validate", CPU_ONLY, *arguments)


def test_the_name_of_a_gpu_is_told_how_to_be_predicted(folder, complaint):
    error = complaint("validate", folder)
    assert "unknown hardware profile 'nvidia-h100-80gb-hbm3'" in error
    assert "--hardware PROFILE says which to predict with" in error


def test_a_profile_by_path_is_found_from_where_the_command_runs(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text(f"name: mine\nextends: {PROFILE}\nvalidated: false\n")
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(folder), "--hardware", "mine.yaml"]) == 0
    first = capsys.readouterr().out.partition("\n")[0]
    assert first == "4 runs of training.csv, predicted from their configuration alone, on mine"


@pytest.mark.parametrize("schedule", ["zero3_offload", "deep_optimizer_states_stride2"])
def test_a_real_trace_without_a_gpu(schedule):
    found = traced(CPU_ONLY, schedule)
    row = next(run for run in read_runs(CPU_ONLY / "training.csv", PROFILE).runs if run.cell("schedule") == schedule)
    assert not found.gpu
    # One iteration under the profiler, against the median of eight: of the same size.
    for phase, column in COLUMN_OF.items():
        seconds = float(found.phases.set_index("phase")["duration_s"][phase])
        assert row.measured[column] / 3 < 1e3 * seconds < 3 * row.measured[column]
    step = {measured.kind: measured for measured in found.in_phase("step")}
    subgroups = int(row.cell("subgroups"))
    assert step["cpu_adam"].count == subgroups
    assert step["scaling"].count == (subgroups if schedule == "zero3_offload" else subgroups - subgroups // 2)
    # All that a phase's activities take passes on the threads of that phase: nothing counts twice.
    threads = found.activities["stream"].nunique()
    for phase in COLUMN_OF:
        span = float(found.phases.set_index("phase")["duration_s"][phase])
        assert sum(measured.seconds for measured in found.in_phase(phase)) <= threads * span


def test_a_report_on_a_real_folder_says_that_no_gpu_is_in_it(tmp_path):
    lines = (CPU_ONLY / "training.csv").read_text().splitlines(keepends=True)
    (tmp_path / "training.csv").write_text("".join(lines[:2]))  # zero3_offload
    (tmp_path / "traces").symlink_to(CPU_ONLY / "traces")
    table, _ = read_tables(tmp_path, PROFILE)
    text, pictures = make_report(validate_runs(table), FILES)
    assert set(pictures) == set(FILES)
    assert "The trace has no GPU: the CPU did the computing" in " ".join(text.split())
    assert "| host copy |" in text
