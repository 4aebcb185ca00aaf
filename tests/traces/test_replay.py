"""A replayed trace takes as long as the trace; a scaled one as long as what waits for what says."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from offsim.api import simulate
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.platform.profiles import load_profile
from offsim.traces import read_trace
from offsim.traces.events import Trace
from offsim.traces.replay import SCALES, parse_scales, replay
from offsim.traces.replay.program import program_of
from tests.calibration.trace_files import (
    GEMM,
    REAL,
    Json,
    call,
    needs_real_traces,
    offloaded_step,
    on_gpu,
    write_kineto,
    write_nsight,
)
from tests.inputs.messages import message_of

HARNESS = Path(__file__).parents[2] / "notebooks" / "harness_cpu"


def trace_of(folder: Path, events: list[Json]) -> Trace:
    return read_trace(write_kineto(folder / "a.json", events))


def scaled_us(trace: Trace, **scales: float) -> float:
    found = replay(trace, scales)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.busy_error == pytest.approx(0, abs=1e-9)
    return round(found.scaled.makespan_s * 1e6, 3)


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ({"h2d": 2}, 1130 - 100),  # GEMM, copy out, wait and all behind it move
        ({"h2d": 0.5}, 1130 + 200),
        ({"gemm": 2}, 1130 - 89),
        ({"d2h": 2}, 1130 - 49),
        ({"cpu_adam": 2}, 1130 - 240),
        ({"gpu_adam": 2}, 1130 - 50),
        ({"attention": 2, "collective": 9, "elementwise": 3, "other": 5, "d2d": 7}, 1130),
        ({"h2d": 2, "gemm": 2, "d2h": 2, "cpu_adam": 2, "gpu_adam": 2}, 1130 - 100 - 89 - 49 - 240 - 50),
    ],
)
def test_what_waits_moves_and_no_more(tmp_path: Path, scales: dict[str, float], expected: float) -> None:
    assert scaled_us(trace_of(tmp_path, offloaded_step()), **scales) == pytest.approx(expected, abs=0.01)


def test_without_the_hosts_own_time_the_gpu_adam_and_latencies_are_left(tmp_path: Path) -> None:
    found = scaled_us(trace_of(tmp_path, offloaded_step()), cpu=1e6)
    assert found == pytest.approx(200 + 178 + 98 + 480 + 100, abs=15)


def test_an_event_wait_that_the_trace_describes_is_kept(tmp_path: Path) -> None:
    # Without the description, the gap alone and the call for a wait tell the same.
    events = offloaded_step()
    undescribed = [event for event in events if event.get("cat") != "cuda_sync"]
    assert scaled_us(trace_of(tmp_path, undescribed), h2d=2) == pytest.approx(1030, abs=0.01)
    # Without the call either, streams are independent: only the copies themselves become shorter.
    alone = [event for event in undescribed if event["name"] != "cudaStreamWaitEvent"]
    assert scaled_us(trace_of(tmp_path, alone), h2d=2) == pytest.approx(1130, abs=0.01)


def test_a_stream_runs_in_order_and_a_kernel_behind_its_launch(tmp_path: Path) -> None:
    events = [
        call("cudaLaunchKernel", 0, 10, 1),
        on_gpu("kernel", GEMM, 12, 100, 1),
        call("cudaLaunchKernel", 10, 10, 2),
        on_gpu("kernel", "other", 113, 50, 2),
        call("cudaLaunchKernel", 300, 10, 3),
        on_gpu("kernel", "other", 312, 50, 3),
    ]
    trace = trace_of(tmp_path, events)
    assert scaled_us(trace, gemm=100) == pytest.approx(362, abs=0.01)  # the last launch is the host's
    assert scaled_us(trace, gemm=0.1) == pytest.approx(12 + 1000 + 1 + 50 + 50, abs=0.01)  # and now the GPU's


def test_a_pageable_copy_blocks_until_it_is_in_the_drivers_buffers(tmp_path: Path) -> None:
    events = [
        call("cudaMemcpyAsync", 0, 100, 1),
        on_gpu("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 10, 110, 1, bytes=10**6),
        call("cudaLaunchKernel", 150, 10, 2),
        on_gpu("kernel", GEMM, 165, 10, 2),
    ]
    assert scaled_us(trace_of(tmp_path, events), h2d=2) == pytest.approx(175 - 45, abs=0.01)
    events[1]["name"] = "Memcpy HtoD (Pinned -> Device)"
    assert scaled_us(trace_of(tmp_path, events), h2d=2) == pytest.approx(175, abs=0.01)


def test_a_full_launch_queue_holds_the_host(tmp_path: Path) -> None:
    events = []
    for i in range(1000):
        events += [call("cudaLaunchKernel", 2 * i, 2, i), on_gpu("kernel", GEMM, 10 + 100 * i, 100, i)]
    # The next launch has room when the fiftieth kernel is over.
    events += [call("cudaLaunchKernel", 2000, 3020, 1000), on_gpu("kernel", "other", 100_010, 100, 1000)]
    events += [call("cudaMemcpy", 10_000, 10, 2000), on_gpu("gpu_memcpy", "DtoD", 100_110, 5, 2000, 7)]
    found = replay(trace_of(tmp_path, events), {"gemm": 2})
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.replayed.busy_s["thread 10"] - found.scaled.busy_s["thread 10"] == pytest.approx(2500e-6, rel=0.01)


def test_a_thread_that_waits_for_another_one(tmp_path: Path) -> None:
    def op(name: str, ts: float, dur: float, tid: int) -> Json:
        return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 9, "tid": tid, "ts": ts, "dur": dur}

    backward = [op("CPUAdam", 1010, 2000, 20)]
    events = [op("forward", 0, 1000, 10), *backward, op("step", 3020, 500, 10)]
    assert scaled_us(trace_of(tmp_path, events), cpu_adam=2) == pytest.approx(2520, abs=0.01)
    # A thread that goes on long after the other one ended was not waiting for it.
    events[-1]["ts"] = 9000
    assert scaled_us(trace_of(tmp_path, events), cpu_adam=2) == pytest.approx(9500, abs=0.01)


def test_steps_are_behind_what_they_wait_for(tmp_path: Path) -> None:
    steps = program_of(trace_of(tmp_path, offloaded_step())).steps
    position = {step.key: i for i, step in enumerate(steps)}
    assert all(position[earlier] < i for i, step in enumerate(steps) for earlier in step.after)
    assert any(step.after for step in steps)


def test_clocks_that_differ_move_the_replay_by_no_more(tmp_path: Path) -> None:
    events = [
        call("cudaLaunchKernel", 100, 10, 1),
        on_gpu("kernel", GEMM, 95, 50, 1),  # before its launch
        call("cudaStreamSynchronize", 112, 30, 2),  # over before the kernel is
        call("cudaStreamSynchronize", 150, 0, 3),
    ]
    found = replay(trace_of(tmp_path, events), {"gemm": 2})
    assert abs(found.replayed.makespan_s - found.original.makespan_s) < 20e-6


def test_profiles_set_the_rates_of_copies(tmp_path: Path) -> None:
    profile = load_profile("jlse-4xh100")
    found = replay(trace_of(tmp_path, offloaded_step()), profile=profile)
    moved = 200e-6 - 5e6 / profile.link.h2d_bytes_per_s + 98e-6 - 2e6 / profile.link.d2h_bytes_per_s
    assert found.replayed.makespan_s - found.scaled.makespan_s == pytest.approx(moved)


def test_exports_of_nsight_and_several_ranks(tmp_path: Path) -> None:
    trace = read_trace(write_nsight(tmp_path / "a.sqlite"))
    assert scaled_us(trace, h2d=2) == pytest.approx(330 - 100, abs=0.01)
    columns = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "shortName")
    rows = [(0, 500_000, 0, 7, 1, 5 << 24, "gemm"), (100, 700_000, 1, 7, 1, 6 << 24, "gemm")]
    two = read_trace(write_nsight(tmp_path / "b.sqlite", CUPTI_ACTIVITY_KIND_KERNEL=(columns, rows)))
    found = replay(two)
    assert set(found.original.busy_s) >= {"rank 0, GPU 0 stream 7", "rank 1, GPU 1 stream 7"}
    assert found.error == pytest.approx(0, abs=1e-9)


RATES = {
    "h2d": ("link.h2d_bytes_per_s", "link.pageable_h2d_bytes_per_s"),
    "d2h": ("link.d2h_bytes_per_s", "link.pageable_d2h_bytes_per_s", "host.fresh_page_bytes_per_s"),
    "collective": ("interconnect.gpu_bytes_per_s",),
    "gpu_adam": ("gpu.adam_params_per_s",),
    "cpu_adam": ("host.adam_params_per_s",),
}


@pytest.fixture(scope="module", params=["dos_20b_4xh100", "zero3_20b_4xh100"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Trace]:
    path = tmp_path_factory.mktemp("exported") / "run.json.gz"
    simulate(request.param).to_perfetto(path)
    return request.param, read_trace(path)


def test_a_run_is_replayed_to_rounding(exported: tuple[str, Trace]) -> None:
    moved = simulate(exported[0]).timeline.groupby("activity")["bytes"].sum()
    copied = exported[1].events.groupby("direction", observed=True)["bytes"].sum()
    assert copied["H2D"] == pytest.approx(moved["h2d"], rel=1e-6)
    found = replay(exported[1])
    assert found.original.makespan_s == pytest.approx(simulate(exported[0]).iteration_s, rel=1e-12)
    assert abs(found.error) < 1e-6
    assert found.busy_error < 1e-6


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("name", RATES)
def test_a_scaled_run_is_what_a_simulation_at_that_rate_is(
    exported: tuple[str, Trace], name: str, factor: float
) -> None:
    """Links are shared, so that less is gained than by shorter copies. What reaches in from before stays as it was."""
    scenario, trace = exported
    found = replay(trace, {name: factor}).scaled
    expected = simulate(scenario, [f"hardware_changes.{rate}=x{factor}" for rate in RATES[name]]).iteration_s
    # Half as fast CPU Adam: the last uploads reach further into the next forward, which the trace has as it was.
    rel = 0.07 if (scenario, name, factor) == ("dos_20b_4xh100", "cpu_adam", 0.5) else 0.011
    assert found.makespan_s == pytest.approx(expected, rel=rel)


def test_ranks_and_buffers_are_replayed_too(tmp_path: Path) -> None:
    for name, all_ranks in (("mlp_offload_70b_4xh100", False), ("zero3_20b_4xh100", True)):
        simulate(name, all_ranks=all_ranks).to_perfetto(tmp_path / "run.json")
        assert abs(replay(read_trace(tmp_path / "run.json")).error) < 1e-6


def test_copies_that_come_to_overlap_share_their_link(tmp_path: Path) -> None:
    """Two copies one behind the other: the first one's kernel is gone, so both want the whole link at once."""
    events = [
        call("cudaLaunchKernel", 0, 10, 1),
        on_gpu("kernel", GEMM, 10, 1000, 1, 7),
        call("cudaMemcpyAsync", 10, 10, 2),
        on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 1010, 100, 2, 7, bytes=10**7),
        call("cudaMemcpyAsync", 20, 10, 3),
        on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 30, 100, 3, 20, bytes=10**7),
    ]
    found = replay(trace_of(tmp_path, events), {"gemm": 100})
    assert found.error == pytest.approx(0, abs=1e-9)
    # At 20 us the first begins, alone for 10 us; then they share until it has moved all, and the other one's rest.
    assert found.scaled.makespan_s == pytest.approx(220e-6, rel=0.01)
    assert found.sharing.startswith("Copies of a GPU in one direction share its link.")


def test_copies_without_bytes_are_said_to_be_as_recorded(tmp_path: Path) -> None:
    events = offloaded_step()
    for event in events:
        event.get("args", {}).pop("bytes", None)
    found = replay(trace_of(tmp_path, events))
    assert "copies have no bytes and take their own time" in found.sharing


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"after": [10**8]}, "expected activities before it"),
        ({"uses": {"a moon": 1.0}}, "found resources or servers that otherData.replay lacks"),
        ({"holds": [77]}, "found resources or servers that otherData.replay lacks"),
        ({"after": "all"}, "args.after: found 'all', expected a list"),
        ({"alone (us)": -1}, "args.alone (us): found -1, expected at least 0"),
    ],
    ids=str,
)
def test_a_damaged_graph_is_named(tmp_path: Path, changed: Json, problem: str) -> None:
    path = tmp_path / "run.json"
    simulate("zero3_3b_rtx4090").to_perfetto(path)
    document = json.loads(path.read_bytes())
    event = next(event for event in document["traceEvents"] if "uses" in event.get("args", {}))
    event["args"] |= changed
    path.write_text(json.dumps(document))
    assert problem in message_of(lambda: read_trace(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("h2d=2,", "found '', expected NAME=FACTOR such as h2d=2"),
        ("gem=2", "unknown 'gem'; did you mean 'gemm'?"),
        ("h2d=2,h2d=3", "found h2d twice, expected it once"),
        ("h2d=nan", "h2d: found 'nan', expected a factor from 1e-6 to 1e6"),
        ("h2d=fast", "h2d: found 'fast', expected a factor from 1e-6 to 1e6"),
        ("h2d=1e9", "h2d: found '1e9', expected a factor from 1e-6 to 1e6"),
    ],
)
def test_wrong_scales_are_named(text: str, problem: str) -> None:
    assert parse_scales(", ".join(f"{name} = 2" for name in SCALES)) == dict.fromkeys(SCALES, 2.0)
    assert message_of(lambda: parse_scales(text)) == f"--scale '{text}': {problem}"


def test_a_trace_with_nothing_to_replay(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, [{"ph": "X", "cat": "user_annotation", "name": "x", "tid": 1, "ts": 5, "dur": 3}])
    with pytest.raises(InputError, match="found neither GPU activities nor calls nor operators"):
        replay(trace)


def test_replay_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, document = write_kineto(tmp_path / "a.json.gz"), tmp_path / "out.json"
    assert main(["replay", str(path)]) == 0
    text = capsys.readouterr().out
    assert "original   1.13 ms" in text
    assert "scaled" not in text
    arguments = ["--scale", "h2d=2,cpu_adam=1.5", "--profile", "jlse-4xh100", "--json", str(document)]
    assert main(["replay", str(path), *arguments]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "h2d 2 times as fast" in text
    found = json.loads(document.read_bytes())
    assert found["original_s"] == pytest.approx(1130e-6)
    assert found["scaled_s"] < found["replayed_s"]
    assert found["streams"]["GPU 0 stream 20"]["original_busy_s"] == pytest.approx(200e-6)
    assert main(["replay", str(path), "--scale", "h2d"]) == 2


@pytest.mark.parametrize("path", sorted(HARNESS.glob("traces/*.gz")), ids=lambda path: path.name)
def test_traces_of_the_harness_are_replayed_as_they_were(path: Path) -> None:
    found = replay(read_trace(path))
    assert abs(found.error) < 0.02
    assert found.busy_error < 0.02


@needs_real_traces
def test_recorded_traces_are_replayed_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    errors = []
    for path in sorted(REAL.glob("*.gz")):
        found = replay(read_trace(path))
        errors.append(abs(found.error))
        with capsys.disabled():
            print(f"\n{path.name:50s} {100 * found.error:+.3f} %, busy {100 * found.busy_error:.3f} %", end="")
        assert abs(found.error) < 0.02, path.name
        assert found.busy_error < 0.02, path.name
    assert statistics.median(errors) < 1e-3


@needs_real_traces
def test_faster_copies_shorten_a_recorded_run_that_they_fill() -> None:
    # One stream holds copies and kernels, 93 % of it H2D copies: what is left at twice the rate is half of these.
    trace = read_trace(REAL / "nsysai_h100x2_pinned_h2d_offload.sqlite.gz")
    found = replay(trace, {"h2d": 2})
    copying = 1.8416 / 2
    assert found.scaled.makespan_s == pytest.approx(found.original.makespan_s - copying / 2, rel=0.02)
