"""offsim calibrate: measurements become a profile that predicts better, and says what each value comes from."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from offsim.calibration import calibrate as module
from offsim.calibration.calibrate import calibrate, phase_residuals, split
from offsim.calibration.runs.fit import points
from offsim.calibration.runs.plausible import FIELDS, check, general_recipe, limit, value_of
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.platform.held_out import FILE_NAME, read_held_out
from offsim.platform.profiles import available_profiles, load_profile
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario
from offsim.validation.run_table import SHIPPED_RUNS, read_runs
from tests.calibration.synthetic_logs import whole_log
from tests.calibration.synthetic_measurements import harness_folder, row, write
from tests.calibration.synthetic_runs import BASE, LIKE_THEM, SCENARIO, TRUTH, runs_table
from tests.conftest import Complaint

TWO_CORE_VM = Path(__file__).parent / "microbenchmarks" / "two_core_vm.jsonl"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    runs_table(folder / "runs.csv")
    harness_folder(folder / "harness")
    return folder


def test_runs_bring_predictions_to_the_machine(measured: Path) -> None:
    found = calibrate([str(measured / "runs.csv")], BASE)
    assert (len(found.fitted), len(found.held_out)) == (6, 2)
    before = phase_residuals(found.held_out, found.base)["sum"]
    assert np.median(np.abs(before)) > 0.03
    assert np.abs(found.residuals["sum"]).max() < 0.01
    assert found.found["host.module_launch_s"].value == pytest.approx(TRUTH["host"]["module_launch_s"], rel=0.02)
    for section, fields in TRUTH.items():
        for field, truth in fields.items():
            value = found.found[f"{section}.{field}"]
            assert value.low <= truth <= value.high
            assert value.source == "fitted"
    assert "interconnect.nic_bytes_per_s" not in found.found  # one node: nothing tells
    assert "gpu.adam_params_per_s" in found.kept


def test_any_mix_of_files_becomes_one_profile(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = measured / "mine.yaml"
    files = [str(measured / "runs.csv"), str(measured / "harness")]
    assert main(["calibrate", *files, "--base", BASE, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"wrote {out}\n"
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    for part in ("h2d_bytes_per_s", "    56 samples of harness", "kernel_launch_s: ", "6 fitted", "2 held out"):
        assert part in printed.out
    assert f"kept from {BASE}: " in printed.out
    profile, base = load_profile(out), load_profile(BASE)
    assert profile.validated
    assert profile.link.h2d_bytes_per_s == pytest.approx(5.5e10, rel=0.05)
    provenance = profile.provenance
    assert provenance["link.h2d_bytes_per_s"].source == "measured"
    assert provenance["link.h2d_bytes_per_s"].note == "56 samples of harness"
    for name in ("link.h2d_bytes_per_s", "host.module_launch_s"):
        low, high = provenance[name].low, provenance[name].high
        assert low < value_of(profile, name) < high
    assert provenance["host.module_launch_s"].source == "fitted"
    assert provenance["host.module_launch_s"].note == "runs of runs.csv"
    assert "on 2 held-out configurations" in provenance["host.module_launch_s"].error
    assert profile.gpu.memory_bytes == base.gpu.memory_bytes
    scenario = load_scenario("zero3_20b_4xh100", [f"hardware={out}"])
    assert simulate(scenario).iteration_s > 0
    first = out.read_bytes()
    assert main(["calibrate", *files, "--base", BASE, "--out", str(out)]) == 0
    assert out.read_bytes() == first


def test_runs_held_out_make_the_interval_of_predictions(measured: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    arguments = ["calibrate", str(measured / "runs.csv"), "--base", BASE, "--out", str(out)]
    (tmp_path / FILE_NAME).write_text('{"other": {}}')
    assert main(arguments) == 0
    result = simulate(SCENARIO, [f"hardware={out}", *LIKE_THEM])
    interval = result.interval
    assert interval is not None, result.no_interval
    assert (interval.runs, interval.coverage, interval.groups) == (2, 2 / 3, ("random configurations",))
    assert read_held_out(tmp_path / FILE_NAME).keys() == {"other", "mine"}
    assert main([*arguments, "--holdout", "0"]) == 0  # what was known of the profile before is not of this one
    assert simulate(SCENARIO, [f"hardware={out}", *LIKE_THEM]).interval is None
    assert read_held_out(tmp_path / FILE_NAME).keys() == {"other"}


def test_a_machine_unlike_its_base(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.yaml"
    entry = "{value: 1e9, unit: B, source: assumed}"
    small.write_text(f"name: small\nextends: {BASE}\nvalidated: false\nhost:\n  memory_bytes: {entry}\n")
    table, out = runs_table(tmp_path / "runs.csv", str(small)), tmp_path / "mine.yaml"
    arguments = ["calibrate", str(table), "--base", str(small), "--out", str(out)]
    assert main(arguments) == 2
    assert "where the machine has more than the base, --set host.memory_bytes=" in capsys.readouterr().err
    given = ["host.memory_bytes=2_000_000_000_001", "link.h2d_bytes_per_s=50GB/s", "gpus_per_node=8"]
    assert main([*arguments, *(f"--set={text}" for text in given)]) == 0
    assert re.search(r"^  memory_bytes +1e\+09 +2e\+12 +assumed$", capsys.readouterr().out, re.MULTILINE)
    profile = load_profile(out)
    assert (profile.host.memory_bytes, profile.link.h2d_bytes_per_s) == (2_000_000_000_001, 5e10)
    assert profile.gpus_per_node == 8
    for name in ("host.memory_bytes", "link.h2d_bytes_per_s"):
        known = profile.provenance[name]
        assert (known.source, known.note, known.low) == ("assumed", "set when calibrating", None)
    assert profile.provenance["host.module_launch_s"].source == "fitted"
    found = calibrate([str(measured / "harness")], BASE, assignments=given)
    assert found.profile.link.h2d_bytes_per_s == 5e10  # measured too, but set


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host.memory_byte=2e12", "--set 'host.memory_byte=2e12': unknown value 'host.memory_byte' of a profile; did"),
        ("host.cores=few", "override 'host.cores=few': host.cores: found 'few', expected a number"),
        ("host.memory_bytes=2us", "override 'host.memory_bytes=2us': host.memory_bytes: found '2us', expected bytes,"),
        ("host.cores=-3", "override 'host.cores=-3': host.cores: found -3, expected more than 0"),
        ("host.cores", "override 'host.cores': expected key=value, such as "),
        ("name=x", "--set 'name=x': unknown value 'name' of a profile; "),
    ],
)
def test_a_value_that_no_profile_could_have(
    measured: Path, tmp_path: Path, complaint: Complaint, text: str, problem: str
) -> None:
    options = ("--base", BASE, "--set", text, "--out", tmp_path / "mine.yaml")
    assert complaint("calibrate", measured / "runs.csv", *options).startswith(problem)


def test_bounds_raise_the_base_and_are_reported_otherwise(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    base = load_profile(BASE).host
    assert main(["calibrate", str(TWO_CORE_VM), "--base", BASE, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "host.memory_bytes_per_s: 7.52e+10 B/s (" in printed
    assert "a lower bound; 10 samples of two_core_vm.jsonl; cpu_adam with 2 threads" in printed
    assert "kept from jlse-4xh100: gpu.matrix_flops_per_s" in printed
    host = load_profile(out).host
    assert host.memory_bytes_per_s == base.memory_bytes_per_s
    assert host.fresh_downcast_params_per_s == pytest.approx(1.17e9, rel=0.01)

    slower = 1.2 * base.module_launch_s
    launches = row("layer_forward_launch", 1, slower, slower, clock="host")
    rows = write(tmp_path / "slow.jsonl", launches, row("h2d_pinned", 4096, 1e-5))
    alone = calibrate([str(rows)], BASE).found["host.module_launch_s"]
    assert alone.value == pytest.approx(slower)
    assert alone.note.startswith("a lower bound; 2 samples of slow.jsonl; forward of a plain layer")
    both = calibrate([str(rows), str(measured / "runs.csv")], BASE)
    assert both.found["host.module_launch_s"].source == "fitted"


def test_measurements_of_another_machine_are_told_by_what_was_held_out(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = str(measured / "runs.csv"), str(tmp_path / "mine.yaml")
    for files, worse in (([runs], False), ([str(TWO_CORE_VM), runs], True)):
        assert main(["calibrate", *files, "--base", BASE, "--out", out]) == 0
        assert ("held out are predicted worse" in capsys.readouterr().out) == worse


def test_a_profile_of_ones_own_is_a_base_too(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bases").mkdir()
    Path("bases/own.yaml").write_text(f"name: own\nextends: {BASE}\nvalidated: false\n")
    table = runs_table(tmp_path / "runs.csv", "bases/own.yaml")
    assert main(["calibrate", str(table), "--base", "bases/own.yaml", "--out", "mine.yaml", "--holdout", "0"]) == 0
    assert not load_profile("mine.yaml").validated
    assert load_profile("mine.yaml").host.module_launch_s == pytest.approx(TRUTH["host"]["module_launch_s"], rel=0.02)
    assert "fitted configurations" in load_profile("mine.yaml").provenance["host.module_launch_s"].error


def test_logs_run_on_the_base(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    zero = "stage=3 offload_optimizer=None sub_group_size=1000000000"
    log.write_text("\n".join(whole_log(zero=zero, forward=400.0, backward=1200.0, step=40.0)) + "\n")
    (run,) = module._log(log, BASE)
    assert (run.scenario.hardware, run.scenario.scheduler.name) == (BASE, "no_offload")
    log.write_text("\n".join(whole_log()) + "\n")
    with pytest.raises(InputError, match="the log does not say: scheduler; make a table of it with `offsim logs`"):
        calibrate([str(log)], BASE)


def test_the_same_configurations_are_held_out_whatever_else_there_is(measured: Path) -> None:
    data = points(read_runs(measured / "runs.csv").runs)
    _, held_out = split(data, 0.3)
    assert split(list(reversed(data)), 0.3)[1] == held_out
    assert split(data, 0.0)[1] == []
    assert split(data[:1], 0.9)[1] == []


def test_what_does_not_fit_or_is_of_other_hardware_is_not_used(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (measured / "runs.csv").read_text().splitlines()
    huge = lines[1].replace("32000", "320000").replace(",4,2048,8192,", ",4000,2048,8192,")
    other = lines[1].replace(BASE, "polaris-4xa100")
    table = tmp_path / "runs.csv"
    table.write_text("\n".join([lines[0], lines[1], huge, other]) + "\n")
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", str(table), "--base", BASE, "--out", str(out)]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert notes[1] == f"not used: 1 of 3 runs, of other hardware than {BASE}"
    assert notes[2].startswith("not used: line 3: was measured, but ")


def test_runs_without_times_of_all_phases_are_named(measured: Path, tmp_path: Path) -> None:
    header, first, second = (line.split(",") for line in (measured / "runs.csv").read_text().splitlines()[:3])
    second[header.index("step_ms")] = ""
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(map(",".join, (header, first, second))) + "\n")
    calibration = calibrate([str(table)], BASE)
    assert calibration.left_out == ("1 of 2 runs, without times of all phases",)
    assert [point.run.line for point in calibration.fitted] == [2]


@pytest.mark.parametrize("name", available_profiles())
def test_shipped_profiles_keep_to_physics_and_can_be_bases(name: str) -> None:
    profile = load_profile(name)
    assert profile.gpu.peak_hbm_bytes_per_s
    assert profile.link.peak_bytes_per_s
    for field in FIELDS:
        if value := value_of(profile, field):
            check(profile, field, value, "profile")
    assert len(general_recipe(profile).constants) > 15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("link.h2d_bytes_per_s", 7e10),
        ("link.pageable_d2h_bytes_per_s", 7e10),
        ("link.duplex_bytes_per_s", 1.4e11),
        ("link.copy_latency_s", -1e-6),
        ("gpu.hbm_bytes_per_s", 3.4e12),
        ("gpu.matrix_flops_per_s", 1e15),
        ("gpu.adam_params_per_s", 1.3e11),
        ("interconnect.collective_gpu_share", 1.01),
    ],
)
def test_physics(field: str, value: float) -> None:
    profile = load_profile(BASE)
    with pytest.raises(InputError, match=rf"^x: {field}: found .*, expected at (most|least)"):
        check(profile, field, value, "x")
    check(profile, field, min(limit(profile, field), 1e9) if value > 0 else 0.0, "x")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["runs.csv", "--base", "jlse-4xh10"], "unknown hardware profile 'jlse-4xh10'; did you mean 'jlse-4xh100'?"),
        (["runs.csv", "--base", "gh200"], "runs.csv: found runs on jlse-4xh100, expected some on gh200, the base"),
        (["runs.csv"], "--base: not given, expected the profile to start from"),
        (["runs.csv", "--base", BASE, "--holdout", "1"], "--holdout: found 1, expected at least 0 and less than 1"),
        (["runs.csv", "--base", BASE, "--holdout", "nan"], "--holdout: found nan, expected at least 0 and less than 1"),
        (["absent.jsonl", "--base", BASE], "absent.jsonl: no such file"),
        (["absent.log", "--base", BASE], "absent.log: no such file"),
        (["long" * 2000, "--base", BASE], "long" * 60),
        (["untimed.csv", "--base", BASE], "untimed.csv: found no run with times of all phases that fits in memory"),
        (["unknown.jsonl", "--base", BASE], "unknown.jsonl: found nothing that determines a value of the profile"),
    ],
)
def test_wrong_input_is_one_message(
    measured: Path, monkeypatch: pytest.MonkeyPatch, complaint: Complaint, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(measured)
    lines = Path("runs.csv").read_text().splitlines()
    times = lines[0].split(",").index("step_ms")
    cells = lines[1].split(",")
    Path("untimed.csv").write_text(f"{lines[0]}\n{','.join([*cells[:times], '', *cells[times + 1 :]])}\n")
    Path("unknown.jsonl").write_text('{"quantity": "nvme", "seconds": [1]}\n')
    assert complaint("calibrate", *arguments, "--out", "none.yaml").startswith(problem)
    assert not Path("none.yaml").exists()


def test_outputs_are_checked_first(tmp_path: Path, complaint: Complaint) -> None:
    message = complaint("calibrate", SHIPPED_RUNS, "--base", BASE, "--out", tmp_path / "mine.json")
    assert "expected .yaml or .yml" in message
