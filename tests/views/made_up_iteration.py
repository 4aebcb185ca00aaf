"""A made-up but realistic iteration: 20B parameters on 4 H100, seen from one rank (31 sub-groups of 0.16 Gp)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

LINK = 55.2e9
HOST_MEMORY = 113e9
LAYERS = 40
SUBGROUPS = 31
PARAMETERS = 0.16e9


@dataclass
class Tables:
    """The tables every view is drawn from, as a result has them."""

    timeline: pd.DataFrame
    phases: pd.DataFrame
    memory: pd.DataFrame
    capacities: dict[str, float]
    bandwidth: pd.DataFrame
    link_capacity: dict[str, float]


@dataclass
class Recorder:
    """Streams in order, each activity after those it waits for; no sharing, only durations given by the caller."""

    rank: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    memory: list[tuple[float, str, str, float]] = field(default_factory=list)
    free: dict[str, float] = field(default_factory=dict)
    phase: str = "forward"

    def add(self, stream: str, kind: str, name: str, seconds: float, after: tuple[int, ...] = (), **more: Any) -> int:
        own = self.free.get(stream, 0.0)
        ready = max((self.rows[i]["end_s"] for i in after), default=0.0)
        start = max(own, ready, more.pop("not_before", 0.0))
        waited = max(after, key=lambda i: self.rows[i]["end_s"]) if after and ready > own else -1
        row = {
            "iteration": 1, "phase": self.phase, "rank": self.rank, "stream": stream, "activity": kind, "name": name,
            "subgroup": -1, "layer": -1, "bytes": 0.0, "enqueued_s": min(own, start), "start_s": start,
            "end_s": start + seconds, "alone_s": seconds, "waited_for": waited, "limited_by": "",
        }  # fmt: skip
        self.rows.append(row | more)
        self.free[stream] = start + seconds
        return len(self.rows) - 1

    def end(self, activity: int) -> float:
        return float(self.rows[activity]["end_s"])

    def now(self) -> float:
        return max((row["end_s"] for row in self.rows), default=0.0)

    def hold(self, time_s: float, tier: str, occupant: str, size: float) -> None:
        self.memory.append((time_s, tier, occupant, size))


def _forward_and_backward(r: Recorder, blocking: bool) -> list[tuple[str, float, float]]:
    gpu = "GPU 0"
    r.hold(0.0, gpu, "parameters (bf16)", 10e9)
    r.hold(0.0, "host", "optimizer state p, m, v (fp32)", 4 * 12 * 5e9)
    r.hold(0.0, "host", "gradients (fp32)", 4 * 4 * 5e9)
    r.hold(0.0, "host", "gradient accumulation buffer (bf16)", 4 * 2 * 5e9)
    for layer in range(LAYERS):
        r.add("host thread", "launch", f"layer {layer} launch", 0.0006, layer=layer)
        gathered = r.add("all-gather", "all_gather", f"layer {layer} gather", 0.0038, layer=layer, bytes=1e9)
        done = r.add("compute", "compute", f"layer {layer} forward", 0.0051, (gathered,), layer=layer)
        r.hold(r.rows[gathered]["start_s"], gpu, "gathered parameters", 2e9)
        r.hold(r.end(done), gpu, "gathered parameters", 1e9)
        r.hold(r.end(done), gpu, "activations", (layer + 1) * 21e6)
    r.add("host thread", "wait", "end of forward", r.free["compute"] - r.free["host thread"])
    forward_end = r.now()
    r.phase = "backward"
    r.hold(forward_end, gpu, "gradient bucket", 1e9)
    r.hold(forward_end, gpu, "logits and loss", 1.6e9)
    r.hold(forward_end + 0.01, gpu, "logits and loss", 0.0)
    flush_every, flushed = LAYERS / SUBGROUPS, 0
    for layer in reversed(range(LAYERS)):
        r.add("host thread", "launch", f"layer {layer} launch", 0.0012, layer=layer)
        gathered = r.add(
            "all-gather", "all_gather", f"layer {layer} gather", 0.0038, layer=layer, not_before=forward_end
        )
        r.add("compute", "compute", f"layer {layer} recompute", 0.0055, (gathered,), layer=layer)
        r.hold(r.free["compute"], gpu, "layer working set", 5e9)
        done = r.add("compute", "compute", f"layer {layer} backward", 0.0125, layer=layer)
        r.hold(r.end(done), gpu, "layer working set", 0.0)
        r.hold(r.rows[gathered]["start_s"], gpu, "gathered parameters", 2e9)
        r.hold(r.end(done), gpu, "gathered parameters", 1e9)
        r.hold(r.end(done), gpu, "activations", layer * 21e6)
        while flushed < SUBGROUPS and (LAYERS - layer) >= (flushed + 1) * flush_every:
            size = 2 * PARAMETERS
            last = r.add("reduce", "reduce_scatter", f"bucket {flushed}", 0.004, (done,), bytes=4 * size)
            last = r.add("reduce", "d2h", f"bucket {flushed} accumulate", size / LINK, bytes=size)
            last = r.add("reduce", "h2d", f"bucket {flushed} accumulate", size / LINK, bytes=size)
            if blocking:
                last = r.add("host thread", "d2h", f"bucket {flushed} pageable", 3 * size / LINK, (last,), bytes=size)
                last = r.add("host thread", "conversion", f"bucket {flushed} to fp32", 0.012)
                r.free["compute"] = max(r.free["compute"], r.end(last))
            else:
                r.add("reduce", "conversion", f"bucket {flushed} to fp32", 0.0008)
                r.add("reduce", "d2h", f"bucket {flushed} fp32", 2 * size / LINK, bytes=2 * size)
                r.hold(r.end(done), gpu, "gradients of GPU sub-groups (bf16)", flushed // 2 * size)
            flushed += 1
    r.hold(r.now(), gpu, "gathered parameters", 0.0)
    r.hold(r.now(), gpu, "gradient bucket", 0.0)
    r.add("host thread", "wait", "end of backward", r.now() - r.free["host thread"])
    return [("forward", 0.0, forward_end), ("backward", forward_end, r.now())]


def _update_on_cpu(r: Recorder) -> None:
    for i in range(SUBGROUPS):
        r.add("host thread", "scaling", f"scaling {i}", 0.011, subgroup=i)
        r.add("host thread", "cpu_adam", f"CPU Adam {i}", 0.062, subgroup=i)
        r.add("host thread", "conversion", f"to bf16 {i}", 0.009, subgroup=i)
        r.add("host thread", "h2d", f"upload {i}", 0.017, subgroup=i, bytes=2 * PARAMETERS)


def _update_interleaved(r: Recorder) -> None:
    size, begin = 4 * PARAMETERS, r.now()
    fetched: tuple[int, ...] = ()
    gpu_before, uploads = -1, ()
    for i in range(SUBGROUPS):
        if i % 2 == 1:
            r.add("host thread", "wait", "fetch", max(0.0, max(map(r.end, fetched)) - r.free["host thread"]))
            gpu_before = r.add("compute", "gpu_adam", f"GPU Adam {i}", 0.003, fetched, subgroup=i)
            continue
        now = r.free["host thread"]
        waits = (gpu_before,) if gpu_before >= 0 else ()
        fetched = ()
        for tensor in "mvp":
            stream = f"copy {tensor}"
            seconds = size / LINK * (1.0 + 0.5 * (tensor == "p"))
            common: dict[str, Any] = {"bytes": size, "alone_s": size / LINK, "not_before": now, "limited_by": "D2H 0"}
            if gpu_before >= 0:
                r.add(stream, "d2h", f"{tensor} of {i - 1} out", seconds, waits, subgroup=i - 1, **common)
            if i + 1 < SUBGROUPS:
                common["limited_by"] = "H2D 0"
                fetched += (r.add(stream, "h2d", f"{tensor} of {i + 1} in", seconds, subgroup=i + 1, **common),)
        r.hold(now, "GPU 0", "GPU sub-group in flight (p, m, v)", 16 * PARAMETERS)
        if uploads:
            r.add("host thread", "wait", "fp16 stream", max(0.0, r.end(uploads[0]) - r.free["host thread"]), uploads)
        r.add(
            "host thread",
            "scaling",
            f"scaling {i}",
            0.0085,
            subgroup=i,
            alone_s=0.0075,
            limited_by="host memory bandwidth 0",
        )
        adam = r.add(
            "host thread",
            "cpu_adam",
            f"CPU Adam {i}",
            0.071,
            subgroup=i,
            alone_s=0.047,
            limited_by="host memory bandwidth 0",
        )
        down = r.add("background thread", "conversion", f"to bf16 {i}", 0.022, (adam,), subgroup=i)
        uploads = (
            r.add("fp16 upload", "h2d", f"bf16 {i}", PARAMETERS * 2 / LINK, (down,), subgroup=i, bytes=2 * PARAMETERS),
        )
    r.hold(r.now(), "GPU 0", "GPU sub-group in flight (p, m, v)", 0.0)
    r.add("host thread", "wait", "end of update", r.free["compute"] - begin if r.free["compute"] > r.now() else 0.0)


def _bandwidth(timeline: pd.DataFrame) -> pd.DataFrame:
    changes: list[tuple[float, str, float]] = []
    for row in timeline.itertuples():
        took = row.end_s - row.start_s
        if row.activity in ("h2d", "d2h") and took > 0:
            rate = row.bytes / took
            resource = f"{str(row.activity).upper()} 0"
            changes += [(row.start_s, resource, rate), (row.end_s, resource, -rate)]
            changes += [(row.start_s, "host memory bandwidth 0", rate), (row.end_s, "host memory bandwidth 0", -rate)]
        if row.activity == "cpu_adam":
            rate = 28 * PARAMETERS / took
            changes += [(row.start_s, "host memory bandwidth 0", rate), (row.end_s, "host memory bandwidth 0", -rate)]
    frame = pd.DataFrame(sorted(changes), columns=["time_s", "resource", "change"])
    capacity = frame["resource"].map({"H2D 0": LINK, "D2H 0": LINK, "host memory bandwidth 0": HOST_MEMORY})
    rate = frame.groupby("resource")["change"].cumsum().clip(lower=0.0)
    frame["bytes_per_s"] = rate.where(rate < capacity, capacity)
    return frame[["time_s", "resource", "bytes_per_s"]].drop_duplicates(["time_s", "resource"], keep="last")


def build(schedule: str) -> Tables:
    """`schedule`: "zero3_offload", "zero3_offload_async_grads" or "deep_optimizer_states"."""
    r = Recorder()
    spans = _forward_and_backward(r, blocking=schedule == "zero3_offload")
    r.phase = "update"
    begin = r.now()
    for stream in ("host thread", "compute", "copy m", "copy v", "copy p", "fp16 upload", "background thread"):
        r.free[stream] = begin
    if schedule == "deep_optimizer_states":
        _update_interleaved(r)
    else:
        _update_on_cpu(r)
    spans.append(("update", begin, r.free["host thread"]))
    timeline = pd.DataFrame(r.rows)
    timeline.index.name = "id"
    phases = pd.DataFrame(spans, columns=["phase", "start_s", "end_s"])
    phases["duration_s"] = phases["end_s"] - phases["start_s"]
    memory = pd.DataFrame(sorted(r.memory, key=lambda m: m[0]), columns=["time_s", "tier", "occupant", "bytes"])
    held: dict[tuple[str, str], float] = {}
    used = []
    for row in memory.itertuples():
        held[str(row.tier), str(row.occupant)] = float(row.bytes)
        used.append(sum(size for (tier, _), size in held.items() if tier == row.tier))
    memory["used_bytes"] = used
    return Tables(
        timeline,
        phases,
        memory,
        {"GPU 0": 80 * 2**30, "host": 1e12},
        _bandwidth(timeline),
        {"H2D 0": LINK, "D2H 0": LINK, "host memory bandwidth 0": HOST_MEMORY},
    )
