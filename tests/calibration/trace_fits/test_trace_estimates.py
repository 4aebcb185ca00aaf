"""Traces of training determine the constants that they show, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offsim.calibration.calibrate import calibrate
from offsim.calibration.microbenchmarks.estimate import Estimate
from offsim.calibration.microbenchmarks.estimates import LAUNCH
from offsim.calibration.trace_fits.estimates import fit_trace
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.platform.profiles import load_profile
from offsim.traces import read_trace
from tests.calibration.synthetic_measurements import row, write
from tests.calibration.synthetic_traces import MB, TRUTH, Recording, collectives, operators, training
from tests.calibration.trace_files import REAL, Json, needs_real_traces, write_kineto
from tests.conftest import Complaint

BASE = "jlse-4xh100"


def fit(path: Path, events: list[Json] | None = None) -> dict[str, Estimate]:
    trace = read_trace(path if events is None else write_kineto(path, events))
    return {estimate.name: estimate for estimate in fit_trace(trace, 4)}


def whole_microseconds(events: list[Json]) -> list[Json]:
    return [event | {"ts": round(event["ts"]), "dur": round(event["dur"])} for event in events]


@pytest.mark.parametrize("slowed", [0.0, 0.3])
def test_constants_come_back_whatever_was_disturbed(tmp_path: Path, slowed: float) -> None:
    found = fit(tmp_path / "trace.json.gz", training(slowed=slowed))
    assert set(found) == set(TRUTH)
    for name, truth in TRUTH.items():
        assert found[name].interval.value == pytest.approx(truth, rel=0.03), name
    assert np.median([estimate.interval.spread for estimate in found.values()]) < 1.05
    assert found["link.h2d_bytes_per_s"].file == str(tmp_path / "trace.json.gz")
    assert found["link.h2d_bytes_per_s"].samples == 15 * 3


def test_intervals_cover(tmp_path: Path) -> None:
    covered = []
    for seed in range(6):
        found = fit(tmp_path / "trace.json", training(seed, noise=0.02))
        intervals = {name: estimate.interval for name, estimate in found.items()}
        covered += [interval.low <= TRUTH[name] <= interval.high for name, interval in intervals.items()]
    assert np.mean(covered) > 0.8


def test_whole_microseconds_are_no_exact_times(tmp_path: Path) -> None:
    found = fit(tmp_path / "trace.json", whole_microseconds(training(noise=0.0, slowed=0.0)))
    assert found["link.copy_latency_s"].interval.value == pytest.approx(3e-6, rel=0.2)
    assert found["link.copy_latency_s"].interval.spread > 1.02
    assert found["link.h2d_bytes_per_s"].interval.value == pytest.approx(5.5e10, rel=0.01)


def test_copies_beside_others_of_their_gpu_say_nothing_of_it_alone(tmp_path: Path) -> None:
    run = Recording(0)
    for _ in range(10):
        at = run.copy("HtoD", "Pinned", 50 * MB, 2e-3, undisturbed=True)
        run.copy("HtoD", "Pinned", 50 * MB, 2e-3, undisturbed=True, at_us=at, stream=8)
        at = run.copy("HtoD", "Pinned", 50 * MB, 2e-3, undisturbed=True)
        # half of it alone: no duplex rate
        run.copy("DtoH", "Pinned", 50 * MB, 4e-3, undisturbed=True, at_us=at, stream=8)
        run.copy("DtoH", "Pageable", 50 * MB, 2e-3, undisturbed=True)
    assert set(fit(tmp_path / "trace.json", run.events)) == {"link.pageable_d2h_bytes_per_s"}


def test_small_copies_alone_tell_a_latency_only(tmp_path: Path) -> None:
    run = Recording(0)
    for _ in range(9):
        run.copy("HtoD", "Pinned", 100, 2e-6)
        run.copy("HtoD", "Pageable", 100, 1e-6)
    found = fit(tmp_path / "trace.json", run.events)
    assert list(found) == ["link.copy_latency_s"]
    assert found["link.copy_latency_s"].interval.value == pytest.approx(2e-6, rel=0.03)


def test_kernels_beside_others_say_nothing_of_their_rate(tmp_path: Path) -> None:
    run = Recording(0)
    operators(run)
    collectives(run)
    for event in [event for event in run.events if event["cat"] == "kernel" and "nccl" not in event["name"]]:
        run.events.append(event | {"name": "other", "args": {"device": 0, "stream": 9}})
    assert set(fit(tmp_path / "trace.json", run.events)) == {
        "interconnect.gpu_bytes_per_s", "interconnect.collective_latency_s", LAUNCH,
    }  # fmt: skip


def test_few_shapes_tell_the_rate_of_the_longest(tmp_path: Path) -> None:
    run = Recording(0, slowed=0.0)
    for _ in range(6):
        run.operator("aten::addmm", [[4096], [4096, 4096], [4096, 4096]], ["c10::Half"] * 3, [("gemm", 4e-4)])
        run.operator("aten::mm", [[512, 512], [512, 512]], ["c10::Half"] * 2, [("gemm", 1e-5)])
    found = fit(tmp_path / "trace.json", run.events)
    assert set(found) == {"gpu.matrix_flops_per_s", LAUNCH}
    assert found["gpu.matrix_flops_per_s"].interval.value == pytest.approx(2 * 4096**3 / 4e-4, rel=0.02)


def test_collectives_over_nodes_do_not_count(tmp_path: Path) -> None:
    trace = read_trace(write_kineto(tmp_path / "trace.json", training()))
    one_gpu = {estimate.name for estimate in fit_trace(trace, 1)}
    assert not any(name.startswith("interconnect") for name in one_gpu)


def test_nothing_to_tell_is_one_message(tmp_path: Path, complaint: Complaint) -> None:
    trace = write_kineto(tmp_path / "trace.json.gz")
    message = complaint("calibrate", trace, "--base", BASE, "--out", tmp_path / "mine.yaml")
    assert message.startswith(f"{trace}: found nothing that determines a value of the profile, expected 5 or more")


def test_a_copy_faster_than_its_link_is_refused(tmp_path: Path) -> None:
    trace = write_kineto(tmp_path / "trace.json", training())
    expected = r"at most 3.465e\+10 by the datasheet peaks of polaris-4xa100; is it the right base\?"
    with pytest.raises(
        InputError, match=rf"^{trace}: link.h2d_bytes_per_s: found 5\.\d+e\+10 B/s, expected {expected}"
    ):
        calibrate([str(trace)], "polaris-4xa100")


def test_a_trace_becomes_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = write_kineto(tmp_path / "trace.json.gz", training()), tmp_path / "mine.yaml"
    assert main(["calibrate", str(trace), "--base", BASE, "--out", str(out)]) == 0
    assert "kernel_launch_s" in capsys.readouterr().out
    profile = load_profile(out)
    assert profile.link.duplex_bytes_per_s == pytest.approx(9.8e10, rel=0.02)
    provenance = profile.provenance["link.duplex_bytes_per_s"]
    assert (provenance.source, provenance.note) == ("measured", "30 samples of trace.json.gz")
    assert not profile.validated


def test_microbenchmarks_win_and_of_traces_the_one_that_leaves_less_open(tmp_path: Path) -> None:
    sizes = (10**4, 10**6, 10**8)
    copies = [row(f"{way}_pinned", size, *[1e-5 + size / 4e10] * 5) for way in ("h2d", "d2h") for size in sizes]
    launches = row("kernel_launch", 1, *[5e-6] * 5, clock="host")
    microbenchmarks = write(tmp_path / "timed.jsonl", *copies, launches)
    steady = write_kineto(tmp_path / "steady.json", training(noise=0.002))
    wild = write_kineto(tmp_path / "wild.json", training(noise=0.1))
    for files in ([wild, microbenchmarks, steady], [steady, wild, microbenchmarks]):
        calibration = calibrate([str(name) for name in files], BASE)
        found = calibration.found
        assert found["link.h2d_bytes_per_s"].value == pytest.approx(4e10)
        assert found["link.copy_latency_s"].note == "30 samples of timed.jsonl"
        assert [estimate.interval.value for estimate in calibration.others] == [pytest.approx(5e-6)]
        for name in ("link.duplex_bytes_per_s", "gpu.matrix_flops_per_s", "gpu.kernel_latency_s"):
            assert found[name].note.endswith("samples of steady.json")


def test_rates_and_their_fixed_time_are_of_one_trace(tmp_path: Path) -> None:
    run = Recording(0, noise=0.001, slowed=0.0)
    for _ in range(20):
        run.operator("aten::mm", [[8192, 8192], [8192, 8192]], ["c10::BFloat16"] * 2, [("gemm", 2e-3)])
    one_shape = write_kineto(tmp_path / "one_shape.json", run.events)
    whole = write_kineto(tmp_path / "whole.json", training(noise=0.02))
    for files in ([one_shape, whole], [whole, one_shape]):
        found = calibrate([str(name) for name in files], BASE).found
        assert found["gpu.matrix_flops_per_s"].note.endswith("whole.json")
        assert found["gpu.kernel_latency_s"].note.endswith("whole.json")


# Rates of large copies as listed beside the files, by hand; B/s.
PUBLISHED = {
    "nsysai_h100x2_pinned_h2d_offload.sqlite.gz": {"link.h2d_bytes_per_s": 27.67e9, "link.copy_latency_s": 2.7e-6},
    "hta_a100-80g_fusedadam_rank0.json.gz": {"link.h2d_bytes_per_s": 12e9},
    "hta_a100_alexnet_pageable_h2d.json.gz": {"link.pageable_h2d_bytes_per_s": 4.3e9},
    "kineto_v100_resnet50_nw0.json.gz": {"link.pageable_h2d_bytes_per_s": 11.6e9},
    "mordred_rtx6000_pageable_both_ways.sqlite.gz": {
        "link.pageable_h2d_bytes_per_s": 5.5e9, "link.pageable_d2h_bytes_per_s": 4.56e9,
    },
    "tracelens_h100_owlv2.json.gz": {
        "link.pageable_h2d_bytes_per_s": 19e9, "link.pageable_d2h_bytes_per_s": 22e9,
    },
}  # fmt: skip


@needs_real_traces
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_traces_agree_with_published_figures(name: str) -> None:
    found = fit(REAL / name)
    for field, published in PUBLISHED[name].items():
        assert found[field].interval.value == pytest.approx(published, rel=0.07), field
    assert {field for field in found if field.startswith("link.")} - {"link.copy_latency_s"} <= set(PUBLISHED[name])


@needs_real_traces
@pytest.mark.parametrize(
    ("name", "flops", "low", "high"),
    [
        ("tracelens_h100_owlv2.json.gz", 43.5e9, 671e12, 761e12),
        ("tracelens_h100_qwen0.5b_prefill.json.gz", 51.6e9, 587e12, 685e12),
        ("tracelens_mi300x_owlv2.json.gz", 43.5e9, 417e12, 487e12),
    ],
)
def test_large_products_of_real_traces_take_as_long_as_published(
    name: str, flops: float, low: float, high: float
) -> None:
    found = fit(REAL / name)
    latency = found["gpu.kernel_latency_s"].interval.value if "gpu.kernel_latency_s" in found else 0.0
    assert low < flops / (latency + flops / found["gpu.matrix_flops_per_s"].interval.value) < high


@needs_real_traces
def test_steady_copies_give_their_median_rate_and_slow_ones_a_wide_interval() -> None:
    path = REAL / "nsysai_h100x2_pinned_h2d_offload.sqlite.gz"
    events = read_trace(path).events
    large = events[(events["direction"] == "H2D") & (events["bytes"] > 50 * MB)]
    median = float((large["bytes"] / (large["end_s"] - large["start_s"])).median())
    assert fit(path)["link.h2d_bytes_per_s"].interval.value == pytest.approx(median, rel=0.001)
    contended = fit(REAL / "hta_a100-40g_fusedadam_control.json.gz")["link.h2d_bytes_per_s"].interval
    assert contended.low < 8e9 < 11.6e9 < contended.high


@needs_real_traces
@pytest.mark.parametrize(
    "name",
    ["fuser_h200_report1.sqlite", "hta_cpu_only_fusedadam.json", "hta_mi250_toy_train.json", "hta_sampled_rank-0.json",
     "hta_tiny_base.json", "hta_a100_event_sync_multi_stream.json"],
)  # fmt: skip
def test_real_traces_that_determine_nothing(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.gz: found nothing that determines a value of the profile"):
        fit(REAL / f"{name}.gz")
