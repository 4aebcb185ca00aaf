"""A measured iteration from a trace of the harness, in the simulator's words: phases, streams, kinds of activity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from offsim.inputs.errors import InputError
from offsim.traces.events import Trace
from offsim.traces.spans import union
from offsim.validation.harness_names import COLUMNS, named_work, on_gpu, on_host
from offsim.validation.run_table import SIMULATED_PHASES

ROUNDING_S = 2e-9
"""How far rounding to the nanoseconds of a trace may bring an activity into a neighbouring phase."""


@dataclass(frozen=True, slots=True)
class MeasuredActivities:
    """All activities of one kind in one phase, those that run beyond it with their part within it."""

    kind: str
    count: int
    """0 where the trace does not tell one from the next."""
    bytes: float
    seconds: float
    kernels: dict[str, float]
    """Of kernels: class -> seconds, largest first."""


@dataclass(frozen=True, eq=False)
class TracedIteration:
    """One iteration; times are seconds from its beginning.

    Columns of `phases`: phase, start_s, end_s, duration_s. Of `activities`: stream, activity (the simulator's kinds),
    kernels (their class), subgroup, layer, start_s, end_s, bytes, single (whether the row is one activity).
    """

    file: str
    gpu: bool
    """Whether a GPU did anything: else the CPU did the computing, too."""
    phases: pd.DataFrame
    activities: pd.DataFrame

    def timeline(self) -> pd.DataFrame:
        """The table to draw; rows too close to be told apart in a picture are joined."""
        names = ["stream", "activity", "subgroup", "layer"]
        gap_s = float(self.phases["end_s"].max()) / 3000
        bars = [
            (*labels, start, end)
            for labels, rows in self.activities.groupby(names, sort=False)
            for start, end in zip(*union(rows, gap_s), strict=True)
        ]
        frame = pd.DataFrame(bars, columns=[*names, "start_s", "end_s"])
        return frame.assign(rank=0, enqueued_s=frame["start_s"], alone_s=frame["end_s"] - frame["start_s"])

    def in_phase(self, phase: str) -> list[MeasuredActivities]:
        """The phase's activities by kind, waits left out."""
        span = self.phases[self.phases["phase"] == phase]
        start, end = float(span["start_s"].iloc[0]), float(span["end_s"].iloc[0])
        rows = self.activities[self.activities["activity"] != "wait"]
        took = rows["end_s"] - rows["start_s"]
        inside = (rows["end_s"].clip(upper=end) - rows["start_s"].clip(lower=start)).clip(lower=0.0)
        rows = rows.assign(seconds=inside, bytes=rows["bytes"] * (inside / took.where(took > 0, 1.0)))[
            inside > ROUNDING_S
        ]
        found = []
        for kind, mine in rows.groupby("activity"):
            kernels = mine[mine["kernels"] != ""].groupby("kernels")["seconds"].sum().sort_values(ascending=False)
            by_class = {str(name): float(seconds) for name, seconds in kernels.items()}
            count, nbytes, seconds = mine["single"].sum(), mine["bytes"].sum(), mine["seconds"].sum()
            found.append(MeasuredActivities(str(kind), int(count), float(nbytes), float(seconds), by_class))
        return found


def last_iteration(trace: Trace) -> TracedIteration:
    """The last iteration that the trace has whole; InputError where it has none that is named as the harness does."""
    events, phase_names = trace.events, list(SIMULATED_PHASES)
    named = events[(events["kind"] == "annotation") & events["name"].isin(phase_names)]
    spans = [
        (str(thread), rows.iloc[i : i + 3])
        for thread, rows in named.groupby("stream", observed=True)
        for i in range(len(rows) - 2)
        if list(rows["name"].iloc[i : i + 3]) == phase_names
    ]
    if not spans:
        expected = "expected annotations forward, backward and step one after another, as the harness makes them"
        raise InputError(f"found no whole iteration, {expected}", str(trace.path))
    main, phases = max(spans, key=lambda span: float(span[1]["start_s"].iloc[0]))
    work = named_work(events)
    gpu = on_gpu(trace, work)
    edges = _edges(phases, gpu)
    rows = pd.concat([on_host(trace, work, main), gpu.assign(single=True)[COLUMNS]], ignore_index=True)
    rows = rows[(rows["end_s"] > edges[0]) & (rows["start_s"] < edges[-1])]
    rows = rows.assign(start_s=rows["start_s"] - edges[0], end_s=rows["end_s"] - edges[0])
    starts, ends = np.array(edges[:-1]) - edges[0], np.array(edges[1:]) - edges[0]
    table = pd.DataFrame({"phase": phase_names, "start_s": starts, "end_s": ends, "duration_s": ends - starts})
    return TracedIteration(
        trace.path.name, bool(trace.devices), table, rows.sort_values("start_s", kind="stable", ignore_index=True)
    )


def _edges(phases: pd.DataFrame, gpu: pd.DataFrame) -> list[float]:
    """Where the phases meet: as the harness times them, when the compute stream has done what was launched until then.

    Between phases the host does nothing, so the ends on the host are where the next ones begin.
    """
    compute = gpu[gpu["stream"] == "compute"]
    launched, ends = compute["launched_s"].to_numpy(), compute["end_s"].to_numpy()
    instants = [float(phases["start_s"].iloc[0]), *(float(end) for end in phases["end_s"])]
    return [max([at, *ends[launched < at].tolist()]) for at in instants]
