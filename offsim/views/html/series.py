"""What a page draws over time, as columns of whole numbers: activities in nanoseconds, changes of memory in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from offsim.programs.run import Run
from offsim.results.limits import CriticalPaths, Step, job_phases
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


def packed(value: Any) -> Any:
    """The document with each list of whole numbers as a text: in base 36, repeated ones as `number*times`."""
    if isinstance(value, dict):
        return {key: packed(one) for key, one in value.items()}
    if isinstance(value, list):
        if value and all(type(one) is int for one in value):
            runs = ((_base36(one), sum(1 for _ in alike)) for one, alike in groupby(value))
            return {"ints": " ".join(one if times == 1 else f"{one}*{_base36(times)}" for one, times in runs)}
        return [packed(one) for one in value]
    return value


@lru_cache(maxsize=4096)
def _base36(number: int) -> str:
    return np.base_repr(number, 36).lower()


class Names:
    """Texts in order of first use, referred to by position."""

    def __init__(self, *first: str) -> None:
        self._places = {name: place for place, name in enumerate(first)}

    def places(self, names: Iterable[str]) -> list[int]:
        """The position of each."""
        return [self._places.setdefault(name, len(self._places)) for name in names]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)


def timeline_series(result: Result, kinds: Names, *, rank: int) -> dict[str, Any]:
    """The activities of a rank, stream by stream in order of time, and the critical path through them."""
    timeline = result.timeline
    rows = of_rank(timeline, rank)
    groups = grouped_streams(rows["stream"], rows["activity"])
    place = rows["stream"].map({name: i for i, name in enumerate(groups)}).to_numpy(dtype=int)
    order = np.lexsort((rows["end_s"], rows["start_s"], place))
    rows, place = rows.iloc[order], place[order]
    start, end = _ns(rows["start_s"]), _ns(rows["end_s"])
    before = np.where(np.diff(place, prepend=NONE) != 0, 0, np.append(0, end[:-1]))
    subgroup, layer = rows["subgroup"].to_numpy(dtype=int), rows["layer"].to_numpy(dtype=int)
    waited = np.where(rows["activity"] == "wait", 0, start - np.minimum(_ns(rows["enqueued_s"]), start))
    sizes, size = np.unique(rows["bytes"].round().astype(np.int64), return_inverse=True)
    columns = {
        "counts": np.bincount(place, minlength=len(groups)),
        "gap": start - before,
        "took": end - start,
        "alone": np.where(slowed_rows(rows), _ns(rows["alone_s"]), 0),
        "waited": waited,
        "light": (every_second(place, subgroup) | every_second(place, layer)).astype(int),
        "subgroup": subgroup,
        "layer": layer,
        "sizes": sizes,
        "size": size,
        "early": np.flatnonzero(rows["iteration"] < 1),
    }
    names, limits = Names(), Names("")
    shown = {index: at for at, index in enumerate(rows.index.tolist())}
    return {
        **{name: values.tolist() for name, values in columns.items()},
        "kind": kinds.places(rows["activity"].tolist()),
        "name": names.places(rows["name"].tolist()),
        "limit": limits.places(rows["limited_by"].tolist()),
        "by": _released_by(timeline[timeline["rank"] == rank], shown),
        "path": _path(result.run, shown, kinds),
        "streams": list(groups),
        "groups": list(groups.values()),
        "names": list(names),
        "limits": list(limits),
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


def _path(run: Run, shown: Mapping[int, int], kinds: Names) -> dict[str, Any]:
    """The critical path from time zero on: which activity, of which kind, for how long."""
    paths = CriticalPaths(run)
    steps = [step for phase in job_phases(run) for step in paths.walk(phase)]
    whole = [(operation, list(parts)) for operation, parts in groupby(steps, _operation)]
    edges = np.array([0.0, *(parts[-1].end - run.started_at for _, parts in whole)])
    return {
        "took": np.diff(np.rint(edges * NS).astype(np.int64)).tolist(),
        "of": [NONE if done is None else shown.get(done.index, ELSEWHERE) for done, _ in whole],
        # of those that are not shown
        "kind": kinds.places(
            "wait" if done is None else done.kind for done, _ in whole if done is None or done.index not in shown
        ),
    }


def _operation(step: Step) -> Any:
    return step.operation


def bandwidth_series(result: Result) -> list[dict[str, Any]]:
    """The bytes per second of each link that is used, from an instant on, as positions in `rates`; of rank 0."""
    bandwidth, capacity = result.bandwidth, capacities(result.run)
    found = []
    for name in (name for names in panels_of(list(dict.fromkeys(bandwidth["resource"]))) for name in names):
        rows = bandwidth[bandwidth["resource"] == name]
        rates, rate = np.unique(rows["bytes_per_s"].round().astype(np.int64), return_inverse=True)
        if rates.max() > 0:
            columns = {"gap": np.diff(_ns(rows["time_s"]), prepend=0), "rate": rate, "rates": rates}
            series = {key: values.tolist() for key, values in columns.items()}
            found.append({"name": name, "colour": colour_of(name), "capacity": round(capacity[name]), **series})
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
        "gap": np.diff(_ns(rows["time_s"]), prepend=0).tolist(),
        "occupant": [places[name] for name in rows["occupant"].tolist()],
        "bytes": rows["bytes"].round().astype(np.int64).tolist(),
    }
