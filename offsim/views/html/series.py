"""What a page draws over time, as columns of whole numbers: activities in nanoseconds, changes of memory in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from offsim.programs.run import Run
from offsim.results.limits import CriticalPaths, job_phases
from offsim.results.records import Peak
from offsim.results.result import Result
from offsim.results.units import format_memory, format_time
from offsim.results.utilization import capacities
from offsim.views.bandwidth import colour_of, panels_of
from offsim.views.memory import OFF_SCALE_BELOW
from offsim.views.style import grouped_streams
from offsim.views.timeline import every_second, of_rank, slowed_rows

NS = 1e9
NONE, ELSEWHERE = -1, -2
"""Instead of an activity: none; one of another rank."""


def timeline_series(result: Result, kinds: dict[str, int], *, rank: int) -> dict[str, Any]:
    """The activities of a rank, stream by stream in order of time, and behind them the steps of the critical path.

    `rows` has the range of each stream and of the path, `same` the activity of a step, `on_path` the time that an
    activity is on the path. Columns that end with the activities say nothing of steps. Kinds are added to `kinds`.
    """
    timeline = result.timeline
    rows = of_rank(timeline, rank)
    groups = grouped_streams(rows["stream"], rows["activity"])
    row = rows["stream"].map({name: i for i, name in enumerate(groups)}).to_numpy(dtype=int)
    order = np.lexsort((rows["end_s"], rows["start_s"], row))
    rows, row = rows.iloc[order], row[order]
    start, end = _ns(rows["start_s"]), _ns(rows["end_s"])
    subgroup, layer = rows["subgroup"].to_numpy(dtype=int), rows["layer"].to_numpy(dtype=int)
    name, names = pd.factorize(rows["name"])
    shown = {index: at for at, index in enumerate(rows.index.tolist())}
    until, of, path_kinds = _path(result.run, shown)
    took, seen = np.diff(until), of >= 0
    edges = [*np.searchsorted(row, np.arange(len(groups) + 1)), len(row) + len(of)]
    columns = {
        "rows": np.stack([edges[:-1], edges[1:]], axis=1),
        "row": np.append(row, np.full(len(of), len(groups))),
        "start": np.append(start, until[:-1]),
        "end": np.append(end, until[1:]),
        "same": np.append(np.arange(len(rows)), of),
        "on_path": np.bincount(of[seen], took[seen], minlength=len(rows)).astype(np.int64),
        "alone": np.where(slowed_rows(rows), _ns(rows["alone_s"]), 0),
        "waited": np.where(rows["activity"] == "wait", 0, start - np.minimum(_ns(rows["enqueued_s"]), start)),
        "light": (every_second(row, subgroup) | every_second(row, layer)).astype(int),
        "subgroup": subgroup,
        "layer": layer,
        "bytes": rows["bytes"].round().astype(np.int64),
        "early": (rows["iteration"] < 1).astype(int),
        "name": name,
        "names": names,
        "limit": rows["limited_by"],
    }
    return {
        **{key: values.tolist() for key, values in columns.items()},
        "count": len(rows),
        "kind": [kinds.setdefault(kind, len(kinds)) for kind in (*rows["activity"], *path_kinds)],
        "by": _released_by(timeline[timeline["rank"] == rank], shown),
        "streams": list(groups),
        "groups": list(groups.values()),
    }


def _ns(seconds: pd.Series[float]) -> np.ndarray:
    whole: np.ndarray = np.rint(seconds.to_numpy(dtype=float) * NS).astype(np.int64)
    return whole


def _released_by(own: pd.DataFrame, shown: Mapping[int, int]) -> list[int]:
    """The position of what released each activity; one that is left out stands for what it waited for."""
    before = dict(zip(own.index.tolist(), own["waited_for"].tolist(), strict=True))

    def place(index: int) -> int:
        while index in before and index not in shown:
            index = before[index]
        return NONE if index == NONE else shown.get(index, ELSEWHERE)

    return [place(before[index]) for index in shown]


def _path(run: Run, shown: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The critical path from time zero on: where its steps end, the activity of each, and its kind."""
    paths = CriticalPaths(run)
    steps = [step for phase in job_phases(run) for step in paths.walk(phase)]
    whole = [(operation, list(parts)[-1].end) for operation, parts in groupby(steps, lambda step: step.operation)]
    until = np.array([0.0, *(end - run.started_at for _, end in whole)])
    of = [NONE if done is None else shown.get(done.index, ELSEWHERE) for done, _ in whole]
    kinds = ["wait" if done is None else done.kind for done, _ in whole]
    return np.rint(until * NS).astype(np.int64), np.array(of), kinds


def bandwidth_series(result: Result) -> list[dict[str, Any]]:
    """The bytes per second of each link that is used, from an instant on, and the bytes moved until then; of rank 0."""
    bandwidth, capacity = result.bandwidth, capacities(result.run)
    found = []
    for name in (name for names in panels_of(list(dict.fromkeys(bandwidth["resource"]))) for name in names):
        rows = bandwidth[bandwidth["resource"] == name]
        time, rate = _ns(rows["time_s"]), rows["bytes_per_s"].round().to_numpy(dtype=np.int64)
        if rate.max() > 0:
            moved = np.append(0, np.cumsum(rate[:-1] * (np.diff(time) / NS))).round().astype(np.int64)
            columns = {"time": time.tolist(), "rate": rate.tolist(), "moved": moved.tolist()}
            found.append({"name": name, "colour": colour_of(name), "capacity": round(capacity[name]), **columns})
    return found


def memory_series(memory: pd.DataFrame, peaks: Sequence[Peak], places: Mapping[str, int]) -> list[dict[str, Any]]:
    """What an occupant of each tier holds from an instant on."""
    tiers = set(memory["tier"])
    return [_tier(memory[memory["tier"] == peak.tier], peak, places) for peak in peaks if peak.tier in tiers]


def _tier(rows: pd.DataFrame, peak: Peak, places: Mapping[str, int]) -> dict[str, Any]:
    share = peak.bytes / peak.capacity_bytes
    return {
        "tier": peak.tier,
        "capacity": peak.capacity_bytes,
        "on_scale": share >= OFF_SCALE_BELOW,
        "peak": peak.bytes,
        "peak_ns": round(peak.time_s * NS),
        "text": f"peak {format_memory(peak.bytes)} at {format_time(peak.time_s)}, {share:.0%} of "
        f"{format_memory(peak.capacity_bytes)}",
        "time": _ns(rows["time_s"]).tolist(),
        "occupant": [places[name] for name in rows["occupant"].tolist()],
        "bytes": rows["bytes"].round().astype(np.int64).tolist(),
    }
