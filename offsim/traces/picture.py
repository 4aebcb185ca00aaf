"""A trace drawn as the simulator's timelines are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from offsim.traces.classes import ADAM_NAME, WAITS, gpu_classes
from offsim.traces.events import GPU_KINDS, Trace
from offsim.traces.summary import merged
from offsim.views.figure import PAPER_WIDTH_IN, Picture
from offsim.views.timeline import plot_timeline

MAX_STREAMS = 24
"""The busiest are drawn."""
_RESOLUTION = 3000
"""Bars closer than the span over this, less than a printed dot, are drawn as one: it bounds their number."""
MAX_PHASES = 40

_STEP = "ProfilerStep#"
_COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce")
_KINDS = {
    "gemm": "compute",
    "attention": "compute",
    "elementwise": "compute",
    "other": "compute",
    "adam": "gpu_adam",
    "memset": "compute",
    "h2d": "h2d",
    "d2h": "d2h",
    "d2d": "d2d",
    "h2h": "d2d",
}


def plot_trace(trace: Trace, *, title: str | None = None, width_in: float = PAPER_WIDTH_IN) -> Picture:
    """Draw what each stream and thread did when."""
    return plot_timeline(timeline_of(trace), _phases(trace), width_in=width_in, title=title)


def timeline_of(trace: Trace) -> pd.DataFrame:
    """The trace as a timeline of few enough bars; several ranks stand beside each other."""
    events = trace.events
    on_gpu = events[events["kind"].isin(GPU_KINDS)]
    calls = events[events["kind"] == "runtime"]
    optimizer = [name for name in events["name"].cat.categories if ADAM_NAME.search(str(name))]
    adam = events[events["kind"].isin(["annotation", "cpu_op"]) & events["name"].isin(optimizer)]
    waits = calls["name"].astype(str).str.contains(WAITS) & (calls["end_s"] > calls["start_s"])
    parts = [
        on_gpu.assign(activity=gpu_activities(on_gpu)),
        # An optimizer that launches kernels is a loop of launches; without any GPU stream in it, it is the CPU's work.
        _without_calls(adam, calls).assign(activity="cpu_adam"),
        calls.assign(activity=np.where(waits, "wait", "launch")),
    ]
    if calls.empty and on_gpu.empty:
        parts.append(events.assign(activity="cpu_work"))
    rows = pd.concat(parts)
    rows["row"] = rows["stream"].astype(str)
    if rows["rank"].nunique() > 1:
        rows["row"] = "rank " + rows["rank"].astype(str) + ": " + rows["row"]
    busy = (rows["end_s"] - rows["start_s"]).groupby(rows["row"]).sum()
    shown = busy.sort_values(ascending=False, kind="stable").index[:MAX_STREAMS]
    ordered = sorted(shown, key=lambda row: (row.split(": ")[0] if ": " in row else "", "thread" in row, row))
    bars = [bar for row in ordered for bar in _bars(rows[rows["row"] == row], row, trace.span_s / _RESOLUTION)]
    frame = pd.DataFrame(bars, columns=["stream", "activity", "start_s", "end_s"])
    return frame.assign(
        rank=0, subgroup=-1, layer=-1, enqueued_s=frame["start_s"], alone_s=frame["end_s"] - frame["start_s"]
    )


def gpu_activities(rows: pd.DataFrame) -> list[str]:
    """The simulator's kind of each activity of a GPU."""
    found = []
    for kind, name in zip(gpu_classes(rows), rows["name"].astype(str), strict=True):
        if kind == "collective":
            plain = name.lower().replace("_", "")
            found.append(next((kind for kind in _COLLECTIVES if kind.replace("_", "") in plain), "collective"))
        else:
            found.append(_KINDS[kind])
    return found


def _without_calls(rows: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """The rows in which their thread made no call to a GPU."""
    free = np.ones(len(rows), dtype=bool)
    for (rank, stream), these in calls.groupby(["rank", "stream"], observed=True):
        mine = ((rows["rank"] == rank) & (rows["stream"] == stream)).to_numpy()
        began = these["start_s"].to_numpy()
        first = np.searchsorted(began, rows["start_s"].to_numpy()[mine])
        last = np.searchsorted(began, rows["end_s"].to_numpy()[mine])
        free[mine] = first == last
    return rows[free]


def _bars(rows: pd.DataFrame, row: str, closer_s: float) -> list[tuple[str, str, float, float]]:
    bars = []
    for activity, these in rows.groupby("activity"):
        ends = these["end_s"].to_numpy() + closer_s
        starts, ends = merged(these["start_s"].to_numpy(), ends)
        bars += [(row, str(activity), float(s), float(e - closer_s)) for s, e in zip(starts, ends, strict=True)]
    return bars


def _phases(trace: Trace) -> pd.DataFrame:
    """The profiler's steps, where there are some and not too many; else the whole trace."""
    events = trace.events
    steps = [name for name in events["name"].cat.categories if str(name).startswith(_STEP)]
    found = events[(events["kind"] == "annotation") & events["name"].isin(steps)].drop_duplicates("name")
    if 0 < len(found) <= MAX_PHASES:
        names = ["step " + str(name).removeprefix(_STEP) for name in found["name"]]
        starts, ends = found["start_s"].to_numpy(), found["end_s"].to_numpy()
    else:
        names, starts, ends = ["trace"], np.array([0.0]), np.array([trace.span_s])
    return pd.DataFrame({"phase": names, "start_s": starts, "end_s": ends, "duration_s": ends - starts})
