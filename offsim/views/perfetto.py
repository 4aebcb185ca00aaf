"""The timeline as Chrome Trace Event JSON, which Perfetto and chrome://tracing open.

Names, categories and arguments are those of PyTorch's profiler, so that tools for its traces read these too.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from typing import Any

import orjson
import pandas as pd

from offsim.inputs.files import atomic_write
from offsim.views.intervals import from_their_beginning, lanes_of
from offsim.views.style import grouped_streams

Event = dict[str, Any]

MEMCPY = {"h2d": "Memcpy HtoD", "d2h": "Memcpy DtoH", "d2d": "Memcpy DtoD"}
NCCL = {
    "all_gather": "ncclDevKernel_AllGather",
    "reduce_scatter": "ncclDevKernel_ReduceScatter",
    "all_reduce": "ncclDevKernel_AllReduce",
}
ON_HOST = {"launch", "wait", "cpu_adam", "scaling", "host copy"}


def write_trace(path: str | os.PathLike[str], events: list[Event], metadata: dict[str, Any]) -> None:
    """Write a trace, gzipped where the path ends in ".gz"; the same input gives the same bytes.

    `metadata` is any JSON: what was simulated, with which version.
    """
    document = {"schemaVersion": 1, "displayTimeUnit": "ms", "otherData": metadata, "traceEvents": events}
    data = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    with atomic_write(path) as handle:
        handle.write(gzip.compress(data, 6, mtime=0) if os.fspath(path).endswith(".gz") else data)


def trace_events(
    timeline: pd.DataFrame,
    memory: pd.DataFrame,
    bandwidth: pd.DataFrame,
    phases: pd.DataFrame,
    more: Mapping[int, Mapping[str, Any]] | None = None,
) -> list[Event]:
    """All events of a trace, slices before the flows between them: a flow binds to a slice that is already there.

    A process per rank with a thread per stream, and one process more for phases, memory (GB) and bandwidth (GB/s).
    `more` are further arguments of activities, by id.
    """
    timeline = from_their_beginning(timeline)
    # What was left over from the iteration before can begin before zero, where viewers show nothing.
    early = min(0.0, float(timeline["start_s"].min()))
    if early < 0:
        timeline, memory, bandwidth, phases = (_later(table, -early) for table in (timeline, memory, bandwidth, phases))
    ranks = sorted(int(rank) for rank in timeline["rank"].unique())
    overview = max(ranks, default=-1) + 1
    tids = {stream: i + 1 for i, stream in enumerate(grouped_streams(timeline["stream"], timeline["activity"]))}
    return [
        *_names(timeline, ranks, tids),
        *_phases(phases, overview),
        *_slices(timeline, tids, more or {}),
        *_flows(timeline, tids),
        *_counters(memory, bandwidth, overview),
    ]


def _later(table: pd.DataFrame, by_s: float) -> pd.DataFrame:
    """The table with every instant that much later."""
    instants = ["time_s", "enqueued_s", "start_s", "end_s"]
    return table.assign(**{column: table[column] + by_s for column in instants if column in table.columns})


def nanoseconds(seconds: float) -> int:
    """Traces are rounded to whole nanoseconds, so that what touches still touches and nothing overlaps."""
    return round(seconds * 1e9)


def _span(start_s: float, end_s: float) -> dict[str, float]:
    """Start and duration in microseconds."""
    start, end = nanoseconds(start_s), nanoseconds(end_s)
    return {"ts": start / 1000, "dur": (end - start) / 1000}


def _names(timeline: pd.DataFrame, ranks: list[int], tids: Mapping[str, int]) -> list[Event]:
    events: list[Event] = []
    for rank in ranks:
        events += _named("process", rank, 0, f"rank {rank}", rank + 1)
        present = set(timeline.loc[timeline["rank"] == rank, "stream"])
        for stream, tid in tids.items():
            if stream in present:
                events += _named("thread", rank, tid, stream, tid)
    return events


def _named(what: str, pid: int, tid: int, name: str, position: int) -> list[Event]:
    """The name and the place of a process or thread."""
    return [
        {"ph": "M", "name": f"{what}_{key}", "pid": pid, "tid": tid, "ts": 0.0, "args": {key: value}}
        for key, value in (("name", name), ("sort_index", position))
    ]


def _phases(phases: pd.DataFrame, pid: int) -> list[Event]:
    """A track of phases, and one more for each that runs while another does (a delayed update)."""
    events = _named("process", pid, 0, "iteration, memory and links", 0)
    starts, ends = phases["start_s"].tolist(), phases["end_s"].tolist()
    lanes = lanes_of(starts, ends)
    for lane in sorted(set(lanes)):
        events += _named("thread", pid, lane, "phases", lane)
    for name, start, end, lane in zip(phases["phase"], starts, ends, lanes, strict=True):
        event = {"ph": "X", "cat": "user_annotation", "name": str(name), "pid": pid, "tid": lane}
        events.append(event | _span(start, end))
    return events


def _slices(timeline: pd.DataFrame, tids: Mapping[str, int], more: Mapping[int, Mapping[str, Any]]) -> list[Event]:
    # What begins at the same time as another and lasts longer encloses it, and must come first.
    rows = timeline.assign(key=timeline.index, lasts_from=-timeline["end_s"]).sort_values(
        ["start_s", "lasts_from"], kind="stable"
    )
    return [
        {
            "ph": "X",
            "cat": category(row["activity"], row["stream"]),
            "name": event_name(row["activity"], row["name"]),
            "pid": row["rank"],
            "tid": tids[row["stream"]],
            **_span(row["start_s"], row["end_s"]),
            "args": {**_arguments(row, tids), **more.get(row["key"], {})},
        }
        for row in rows.to_dict("records")
    ]


def category(kind: str, stream: str) -> str:
    """What PyTorch's profiler would call it: gpu_memcpy, cpu_op (on host threads and storage) or kernel."""
    if kind in MEMCPY:
        return "gpu_memcpy"
    on_host = kind in ON_HOST or "thread" in stream or kind.endswith((" read", " write"))
    return "cpu_op" if on_host else "kernel"


def event_name(kind: str, name: str) -> str:
    """The activity's name, behind the name that tools know copies and collectives by."""
    known = MEMCPY.get(kind) or NCCL.get(kind)
    return f"{known}: {name}" if known else name


def _arguments(row: Mapping[Any, Any], tids: Mapping[str, int]) -> dict[str, Any]:
    seconds = row["end_s"] - row["start_s"]
    arguments: dict[str, Any] = {}
    if category(row["activity"], row["stream"]) != "cpu_op":
        arguments |= {"device": row["rank"], "stream": tids[row["stream"]], "correlation": row["key"]}
    if row["bytes"] > 0:
        arguments["bytes"] = round(row["bytes"])
        if seconds > 0:
            arguments["memory bandwidth (GB/s)"] = round(row["bytes"] / seconds / 1e9, 3)
    arguments |= {"kind": row["activity"], "iteration": row["iteration"], "phase": row["phase"]}
    if row["subgroup"] >= 0:
        arguments["sub-group"] = row["subgroup"]
    if row["layer"] >= 0:
        arguments["layer"] = row["layer"]
    arguments["enqueued (us)"] = nanoseconds(row["enqueued_s"]) / 1000
    arguments["alone (us)"] = nanoseconds(row["alone_s"]) / 1000
    if row["limited_by"]:
        arguments["limited by"] = row["limited_by"]
    return arguments


def _flows(timeline: pd.DataFrame, tids: Mapping[str, int]) -> list[Event]:
    """Arrows from what was waited for to what waited, where they are on different streams."""
    columns = ["rank", "stream", "start_s", "end_s", "activity"]
    spans = {
        key: (rank, tids[stream], nanoseconds(start), nanoseconds(end), kind)
        for key, rank, stream, start, end, kind in timeline[columns].itertuples()
    }
    events: list[Event] = []
    for key, source in timeline["waited_for"].items():
        if source not in spans:
            continue
        pid, tid, start, end, _ = spans[source]
        to_pid, to_tid, to_start, to_end, kind = spans[key]
        # An arrow is tied to a slice by an instant within it; what takes no time has none, nor can arrows go back.
        arrives = to_end - 1 if kind == "wait" else to_start
        leaves = min(end - 1, arrives)
        if (pid, tid) == (to_pid, to_tid) or leaves < start or end == start or to_end == to_start:
            continue
        common = {"cat": "dependency", "name": "releases", "id": key}
        events.append({"ph": "s", **common, "pid": pid, "tid": tid, "ts": leaves / 1000})
        events.append({"ph": "f", "bp": "e", **common, "pid": to_pid, "tid": to_tid, "ts": arrives / 1000})
    return events


def _counters(memory: pd.DataFrame, bandwidth: pd.DataFrame, pid: int) -> list[Event]:
    """A counter of what each tier holds, of each of its occupants, and of what each resource carries."""
    values = []
    columns = ["time_s", "tier", "occupant", "bytes", "used_bytes"]
    for time_s, tier, occupant, held, used in memory[columns].itertuples(index=False):
        values += [(f"{tier}: used", "GB", time_s, used), (f"{tier}: {occupant}", "GB", time_s, held)]
    for time_s, resource, rate in bandwidth[["time_s", "resource", "bytes_per_s"]].itertuples(index=False):
        values.append((resource, "GB/s", time_s, rate))
    changes: dict[tuple[str, int], Event] = {}
    for name, unit, time_s, value in values:
        # Of several changes at one instant the last counts. Perfetto names a counter by its name and the unit.
        instant = nanoseconds(time_s)
        changes[name, instant] = {
            "ph": "C", "name": name, "pid": pid, "tid": 0, "ts": instant / 1000, "args": {unit: round(value / 1e9, 6)}
        }  # fmt: skip
    return list(changes.values())
