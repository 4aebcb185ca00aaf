"""A folder as the harness leaves it on a machine with a GPU whose truth is known, since it is simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.scenario import Scenario
from offsim.validation.run_table import run_of
from tests.calibration.trace_files import ADAM, GEMM, Json, call, on_gpu, write_kineto
from tests.validation.conftest import SMALL, table_text

PROFILE = "jlse-4xh100"
ROW = SMALL | {
    "hardware": "nvidia-h100-80gb-hbm3", "series": "", "model": "0.5B", "layers": "6", "hidden": "2048",
    "ffn_hidden": "5504", "heads": "16", "kv_heads": "16", "seq": "1024", "vocab": "32000", "flash_attn": "True",
    "dp": "1", "micro_batch": "1", "global_batch": "1", "subgroup_size": "20000000",
}  # fmt: skip
SCHEDULES = {
    "zero3_offload": {"scheduler": "zero3_offload"},
    "zero3_offload_async_grads": {"scheduler": "zero3_offload_async_grads"},
    "zero3_offload_async_grads_cpu_ratio0.5": {"scheduler": "zero3_offload_async_grads", "cpu_ratio": "0.5"},
    "deep_optimizer_states_stride2": {"scheduler": "deep_optimizer_states", "update_stride": "2"},
}
ELEMENTWISE = "void at::native::elementwise_kernel<128, 4>(int)"
MAIN, BACKGROUND = 10, 11
STREAMS = {"compute": 7, "reduce": 13, "upload": 14, "bf16 upload": 14, "copy momentum": 20, "copy variance": 21,
           "copy parameters": 22}  # fmt: skip


def scenario_of(schedule: str) -> Scenario:
    """What the row of a schedule says, on the profile."""
    return run_of(Path("training.csv"), 2, ROW | SCHEDULES[schedule], PROFILE).scenario


def write_harness(folder: Path, stretch: Mapping[str, float], schedules: tuple[str, ...] = tuple(SCHEDULES)) -> Path:
    """Write the table and the traces of schedules whose activities take so many times as long as simulated.

    Of a trace's two iterations only the last does; the first is as simulated.
    """
    (folder / "traces").mkdir(parents=True)
    rows = []
    for schedule in schedules:
        usual = simulate(scenario_of(schedule))
        slow = simulate(scenario_of(schedule), stretch=stretch)
        ms = {phase: f"{1e3 * seconds:.6f}" for phase, seconds in slow.durations.items()}
        times = {"fwd_ms": ms["forward"], "bwd_ms": ms["backward"], "step_ms": ms["update"]}
        rows.append(ROW | SCHEDULES[schedule] | {"schedule": schedule} | times)
        events = iteration(usual, 0, 1e6) + iteration(slow, 1, 2e6 + 1e6 * usual.iteration_s)
        write_kineto(folder / "traces" / f"{schedule}.json.gz", events)
    (folder / "training.csv").write_text(table_text(rows))
    return folder


def annotation(name: str, ts: float, dur: float, tid: int = MAIN) -> Json:
    return {"ph": "X", "cat": "user_annotation", "name": name, "pid": 9, "tid": tid, "ts": ts, "dur": dur}


def iteration(result: Result, number: int, origin_us: float) -> list[Json]:
    """The events of one simulated iteration."""
    events: list[Json] = []
    for name, rows in result.phases.groupby("phase", sort=False):
        at, end = rows["start_s"].iloc[0], rows["end_s"].iloc[0]
        events.append(annotation({"update": "step"}.get(str(name), str(name)), origin_us + 1e6 * at, 1e6 * (end - at)))
    issued: Counter[tuple[int, float]] = Counter()
    for index, row in result.timeline.sort_index().iterrows():
        # What an iteration leaves to the next is also at that one's beginning.
        if row["activity"] == "wait" or row["end_s"] <= 0 or (number == 0 and row["end_s"] > result.iteration_s):
            continue
        tid = BACKGROUND if row["stream"] in ("background thread", "bf16 upload") else MAIN
        # The simulator issues in no time; here one call comes after the other.
        at = origin_us + 1e6 * row["enqueued_s"] + 0.1 * issued[tid, row["enqueued_s"]]
        issued[tid, row["enqueued_s"]] += 1
        start, took = origin_us + 1e6 * row["start_s"], 1e6 * (row["end_s"] - row["start_s"])
        if row["stream"] in STREAMS:
            events += gpu_activity(row, at, start, took, 1_000_000 * number + int(str(index)), tid)
        else:
            events += host_activity(row, max(at, start), start + took - 0.05, tid)
    return joined(events)


def joined(events: list[Json]) -> list[Json]:
    """One annotation for what is issued under the same name at once."""
    last: dict[tuple[str, int], Json] = {}
    found = []
    for event in events:
        before = last.get((event["name"], event["tid"])) if event["cat"] == "user_annotation" else None
        if before is not None and event["ts"] - before["ts"] - before["dur"] < 1:
            before["dur"] = event["ts"] + event["dur"] - before["ts"]
            continue
        last[event["name"], event["tid"]] = event
        found.append(event)
    return found


def host_activity(row: pd.Series, start: float, end: float, tid: int) -> list[Json]:
    """Work of a thread: an operator, named where the harness names it."""
    group = row["subgroup"]
    background = tid == BACKGROUND
    name = {
        "scaling": f"scale sub-group {group}",
        "cpu_adam": f"CPU Adam sub-group {group}",
        "conversion": f"{'downcast' if background else 'upload'} sub-group {group}" if group >= 0 else "flush bucket",
    }.get(row["activity"])
    operator = "aten::mul_" if row["activity"] != "conversion" else "aten::copy_" if group < 0 else "aten::to"
    named = [annotation(name, start, end - start, tid)] if name else []
    operation = {"cat": "cpu_op", "name": operator, "pid": 9, "tid": tid, "ts": start, "dur": end - start}
    return [*named, {"ph": "X", **operation}]


def gpu_activity(row: pd.Series, at: float, start: float, took: float, correlation: int, tid: int) -> list[Json]:
    """A copy or kernel, the call that launched it, and the name that it was launched in."""
    kind, stream, group = row["activity"], row["stream"], row["subgroup"]
    pageable = row["name"] in ("gradients", "upload parameters") and stream != "bf16 upload"
    memory = "Pageable" if pageable else "Pinned"
    copies = {"h2d": f"Memcpy HtoD ({memory} -> Device)", "d2h": f"Memcpy DtoH (Device -> {memory})"}
    if stream == "reduce" and kind == "d2d":
        gpu = on_gpu("gpu_memcpy", "Memcpy DtoD (Device -> Device)", start, took, correlation, STREAMS[stream],
                     bytes=round(row["bytes"] / 2))  # fmt: skip
    elif kind in copies:
        gpu = on_gpu("gpu_memcpy", copies[kind], start, took, correlation, STREAMS[stream], bytes=round(row["bytes"]))
    else:
        name = {"compute": GEMM, "gpu_adam": ADAM}.get(kind, ELEMENTWISE)
        gpu = on_gpu("kernel", name, start, took, correlation, STREAMS[stream])
    work = None
    if stream == "reduce" and row["name"] != "copy into bucket":
        work = "flush bucket"
    elif group >= 0:
        moved = f"{'fetch' if kind == 'h2d' else 'flush'} sub-group {group}"
        work = moved if "copy" in stream else f"{'upload' if kind == 'h2d' else 'GPU Adam'} sub-group {group}"
    launched = 0.05 if not pageable else max(0.05, start + took - at)  # which keeps the thread until it is done
    named = [annotation(work, at, launched, tid)] if work else []
    launcher = "cudaMemcpyAsync" if gpu["cat"] == "gpu_memcpy" else "cudaLaunchKernel"
    return [*named, call(launcher, at, launched, correlation, tid), gpu]
