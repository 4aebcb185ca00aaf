"""A trace drawn as the simulator's timelines are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from offsim.traces.classes import WAITS, cpu_adam, gpu_activities
from offsim.traces.events import Trace
from offsim.traces.spans import union
from offsim.views.figure import Picture
from offsim.views.timeline import plot_timeline

MAX_STREAMS = 24
"""The busiest are drawn."""
_RESOLUTION = 3000
"""Bars closer than the span over this, less than a printed dot, are drawn as one: it bounds their number."""
MAX_PHASES = 40

_STEP = "ProfilerStep#"


def plot_trace(trace: Trace, *, title: str) -> Picture:
    """Draw the activities of each stream and thread."""
    return plot_timeline(timeline_of(trace), _phases(trace), title=title)


def timeline_of(trace: Trace) -> pd.DataFrame:
    """The trace as a timeline of few enough bars; rows of several ranks are told apart by name."""
    events = trace.events
    on_gpu, calls = trace.on_gpu, events[events["kind"] == "runtime"]
    waits = calls["name"].astype(str).str.contains(WAITS) & (calls["end_s"] > calls["start_s"])
    parts = [
        on_gpu.assign(activity=gpu_activities(on_gpu)),
        events[cpu_adam(events)].assign(activity="cpu_adam"),
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
    bars = [
        (row, str(activity), float(start), float(end))
        for row in ordered
        for activity, alike in rows[rows["row"] == row].groupby("activity")
        for start, end in zip(*union(alike, trace.span_s / _RESOLUTION), strict=True)
    ]
    frame = pd.DataFrame(bars, columns=["stream", "activity", "start_s", "end_s"])
    return frame.assign(
        rank=0, subgroup=-1, layer=-1, enqueued_s=frame["start_s"], alone_s=frame["end_s"] - frame["start_s"]
    )


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
