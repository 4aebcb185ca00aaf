"""Activities of a harness trace in the simulator's words: kinds, streams, sub-groups, layers.

The harness annotates its layers and the work on each sub-group. A GPU activity belongs to the annotation in which it
was launched, work of a host thread to the one around it.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from offsim.traces.classes import WAITS, gpu_activities, gpu_classes
from offsim.traces.events import NONE, Trace
from offsim.traces.spans import Spans, union, without

BURST_S = 100e-6
"""Between calls and operators, a thread that pauses for less was in Python."""

_WORK = re.compile(r"(?P<work>.+) sub-group (?P<subgroup>\d+)|layer (?P<layer>\d+)|(?P<flush>flush bucket)")
_HOST_WORK = {"scale": "scaling", "CPU Adam": "cpu_adam", "downcast": "conversion"}
_STATE = ("momentum", "variance", "parameters")
"""Tensors of a sub-group, in the order in which the harness fetches and flushes them, each on a stream of its own."""
_CONVERTING_WORK, _COPYING_WORK = ("flush bucket", "upload"), ("flush bucket", "upload", "fetch", "flush")
_COPY_OPERATORS = ("aten::to", "aten::_to_copy", "aten::copy_")
COLUMNS = ["stream", "activity", "kernels", "subgroup", "layer", "start_s", "end_s", "bytes", "single"]


def named_work(events: pd.DataFrame) -> pd.DataFrame:
    """The annotations that name work: work ("fetch", "flush bucket", ...), subgroup, layer, on which thread, when."""
    names = {str(name): _WORK.fullmatch(str(name)) for name in events["name"].cat.categories}
    matched = {name: match for name, match in names.items() if match}
    rows = events[(events["kind"] == "annotation") & events["name"].isin(list(matched))]
    found = [matched[str(name)] for name in rows["name"]]
    return pd.DataFrame(
        {
            "stream": rows["stream"].astype(str).to_numpy(),
            "start_s": rows["start_s"].to_numpy(),
            "end_s": rows["end_s"].to_numpy(),
            "work": pd.Series([match["work"] or match["flush"] or "layer" for match in found], dtype=object),
            "subgroup": pd.Series([int(match["subgroup"] or NONE) for match in found], dtype=np.int64),
            "layer": pd.Series([int(match["layer"] or NONE) for match in found], dtype=np.int64),
            "number": range(len(rows)),
        }
    )


def _work_at(threads: np.ndarray, times: np.ndarray, work: pd.DataFrame) -> pd.DataFrame:
    """The named work that each thread was in at each time: work ("" for none), subgroup, layer, number."""
    found = np.full(len(times), NONE)
    for thread, rows in work.groupby("stream"):
        mine = np.flatnonzero(threads == thread)
        last = np.searchsorted(rows["start_s"].to_numpy(), times[mine], side="right") - 1
        inside = (last >= 0) & (times[mine] <= rows["end_s"].to_numpy()[last])
        found[mine[inside]] = rows["number"].to_numpy()[last[inside]]
    columns = ["work", "subgroup", "layer", "number"]
    named = work.set_index("number", drop=False)[columns].reindex(found).reset_index(drop=True)
    numbers = {name: named[name].fillna(NONE).astype(int) for name in columns[1:]}
    return named.assign(work=named["work"].astype(object).fillna(""), **numbers)


def on_gpu(trace: Trace, work: pd.DataFrame) -> pd.DataFrame:
    """GPU activities, with their launch times."""
    events, rows = trace.events, trace.on_gpu
    calls = rows["launched_by"].to_numpy()
    known = calls != NONE
    launched = np.where(known, events["start_s"].to_numpy()[calls], rows["start_s"].to_numpy())
    threads = np.where(known, events["stream"].astype(object).to_numpy()[calls], "")
    named = _work_at(threads, launched, work)
    frame = pd.DataFrame(
        {
            "trace_stream": rows["stream"].astype(str).to_numpy(),
            "activity": np.array(gpu_activities(rows), dtype=object),
            "kernels": np.where(rows["kind"] == "kernel", gpu_classes(rows), ""),
            "start_s": rows["start_s"].to_numpy(),
            "end_s": rows["end_s"].to_numpy(),
            "bytes": rows["bytes"].to_numpy(dtype=float),
            "launched_s": launched,
            "seconds": (rows["end_s"] - rows["start_s"]).to_numpy(),
        }
    ).join(named)
    names = _stream_names(frame)
    frame["stream"] = frame["trace_stream"].map(names)
    kernels = (rows["kind"] == "kernel").to_numpy() & (frame["activity"] == "compute")
    memory_bound = kernels & ((frame["work"] == "GPU Adam") | (frame["stream"] == "reduce"))
    frame.loc[memory_bound, "activity"] = "d2d"
    frame.loc[kernels & (frame["work"] == "flush bucket"), "activity"] = "conversion"
    frame.loc[(frame["activity"] == "d2d") & ~kernels, "bytes"] *= 2  # read and written, as the simulator counts
    return frame


def _stream_names(gpu: pd.DataFrame) -> dict[str, str]:
    """The trace's streams -> the simulator's, told by the work that took most of their time."""
    order = gpu[gpu["number"] != NONE].sort_values("launched_s", kind="stable").groupby("number").cumcount()
    tensor = order.reindex(gpu.index).fillna(0).astype(int).clip(upper=len(_STATE) - 1)
    roles = np.where(
        gpu["work"].isin(["fetch", "flush"]),
        "copy " + np.array(_STATE, dtype=object)[tensor],
        gpu["work"].map({"upload": "bf16 upload", "flush bucket": "reduce"}).fillna(""),
    )
    matrices = gpu["seconds"].where(gpu["kernels"].isin(["gemm", "attention"]), 0.0).groupby(gpu["trace_stream"]).sum()
    names = {str(matrices.idxmax()): "compute"} if len(matrices) else {}
    seconds = gpu[roles != ""].groupby(["trace_stream", roles[roles != ""]])["seconds"].sum().sort_values()
    for stream, role in reversed(seconds.index.tolist()):
        if stream not in names:
            names[stream] = role if role not in names.values() else f"{role} ({stream})"
    return {str(stream): names.get(str(stream), str(stream)) for stream in gpu["trace_stream"].unique()}


def on_host(trace: Trace, work: pd.DataFrame, main: str) -> pd.DataFrame:
    """Activities of host threads: named work, conversions, waits, and launches with the Python between them."""
    events = trace.events
    calls = events[events["kind"] == "runtime"]
    blocking = events.loc[(events["kind"] == "memcpy") & (events["memory"] == "pageable"), "launched_by"]
    waits = calls[calls["name"].astype(str).str.contains(WAITS) | calls.index.isin(blocking)]
    host_work = _HOST_WORK if trace.devices else {**_HOST_WORK, "GPU Adam": "cpu_adam"}
    doing = events[events["kind"].isin(["runtime", "cpu_op"])]
    parts: list[pd.DataFrame] = []
    for thread, rows in doing.groupby("stream", observed=True):
        own = work[work["stream"] == thread]
        named = own[own["work"].isin(list(host_work))]
        name = _thread_name(str(thread), main, own)
        parts.append(named.assign(activity=named["work"].map(host_work), single=True, stream=name))
        waiting = union(waits[waits["stream"] == thread])
        kinds = {"wait": waiting} | _conversions(rows, own, gpu=bool(trace.devices))
        launching = without(union(rows, BURST_S), union(named))
        for kind, found in kinds.items():
            launching = without(launching, found)
            parts.append(_rows(name, kind, found, single=kind != "wait"))
        parts.append(_rows(name, "launch" if trace.devices else "compute", launching, single=False))
    frame = pd.concat([pd.DataFrame(columns=COLUMNS), *parts], ignore_index=True)[COLUMNS]
    types = {"subgroup": int, "layer": int, "bytes": float, "start_s": float, "end_s": float, "single": bool}
    return frame.assign(kernels="", bytes=0.0).astype(types)


def _thread_name(thread: str, main: str, work: pd.DataFrame) -> str:
    names = set(work["work"])
    return (
        "host thread" if thread == main
        else "background thread" if "downcast" in names
        else "autograd thread" if "flush bucket" in names
        else thread
    )  # fmt: skip


def _conversions(rows: pd.DataFrame, work: pd.DataFrame, *, gpu: bool) -> dict[str, Spans]:
    """A thread's copies within host memory where gradients are flushed and parameters uploaded, by kind.

    With a GPU they convert between bf16 and fp32. Without one only those that say so do; the others stand for copies
    to and from a GPU.
    """
    asked = rows[rows["kind"].eq("cpu_op") & rows["name"].isin(_COPY_OPERATORS)]
    threads, times = asked["stream"].astype(object).to_numpy(), asked["start_s"].to_numpy()
    asked = asked.assign(work=_work_at(threads, times, work)["work"].to_numpy())
    calls = rows.loc[rows["kind"] == "runtime", "start_s"].to_numpy()
    first, last = (np.searchsorted(calls, asked[edge].to_numpy()) for edge in ("start_s", "end_s"))
    copied = asked[(first == last) & asked["work"].isin(_COPYING_WORK)]
    says_so = copied["work"].isin(_CONVERTING_WORK) & (gpu | (copied["name"] != "aten::copy_"))
    conversions = union(copied[says_so])
    return {"conversion": conversions, "host_copy": without(union(copied[~says_so]), conversions)}


def _rows(stream: str, kind: str, spans: Spans, *, single: bool) -> pd.DataFrame:
    frame = pd.DataFrame({"start_s": spans[0], "end_s": spans[1]})
    return frame.assign(stream=stream, activity=kind, subgroup=NONE, layer=NONE, single=single)
