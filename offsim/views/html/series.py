"""What a page draws over time, as columns of whole numbers: activities in nanoseconds, changes of memory in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from offsim.results.records import Peak
from offsim.results.units import format_memory, format_time
from offsim.views.memory import OFF_SCALE_BELOW
from offsim.views.style import grouped_streams
from offsim.views.timeline import every_second, of_rank, slowed_rows

NS = 1e9
NONE, ELSEWHERE = -1, -2
"""Instead of the activity that released one: none in this iteration; one that is not shown."""


class Names:
    """Texts in order of first use, referred to by position."""

    def __init__(self, *first: str) -> None:
        self._places = {name: place for place, name in enumerate(first)}

    def places(self, names: Iterable[str]) -> list[int]:
        """The position of each."""
        return [self._places.setdefault(name, len(self._places)) for name in names]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)


def timeline_series(timeline: pd.DataFrame, kinds: Names, *, rank: int) -> dict[str, Any]:
    """The activities of a rank, stream by stream in order of time."""
    rows = of_rank(timeline, rank)
    groups = grouped_streams(rows["stream"], rows["activity"])
    streams = list(groups)
    place = rows["stream"].map({name: i for i, name in enumerate(streams)}).to_numpy(dtype=int)
    order = np.lexsort((rows["end_s"], rows["start_s"], place))
    rows, place = rows.iloc[order], place[order]
    start, end = _ns(rows["start_s"]), _ns(rows["end_s"])
    before = np.where(np.diff(place, prepend=NONE) != 0, 0, np.append(0, end[:-1]))
    subgroup, layer = rows["subgroup"].to_numpy(dtype=int), rows["layer"].to_numpy(dtype=int)
    waited = np.where(rows["activity"] == "wait", 0, start - np.minimum(_ns(rows["enqueued_s"]), start))
    columns = {
        "counts": np.bincount(place, minlength=len(streams)),
        "gap": start - before,
        "took": end - start,
        "alone": np.where(slowed_rows(rows), _ns(rows["alone_s"]), 0),
        "waited": waited,
        "light": (every_second(place, subgroup) | every_second(place, layer)).astype(int),
        "subgroup": subgroup,
        "layer": layer,
        "bytes": rows["bytes"].round().astype(np.int64),
    }
    names, limits = Names(), Names("")
    return {
        **{name: values.tolist() for name, values in columns.items()},
        "kind": kinds.places(rows["activity"].tolist()),
        "name": names.places(rows["name"].tolist()),
        "limit": limits.places(rows["limited_by"].tolist()),
        "by": _released_by(timeline, rows),
        "streams": streams,
        "names": list(names),
        "limits": list(limits),
    }


def _ns(seconds: pd.Series[float]) -> np.ndarray:
    whole: np.ndarray = np.rint(seconds.to_numpy(dtype=float) * NS).astype(np.int64)
    return whole


def _released_by(timeline: pd.DataFrame, rows: pd.DataFrame) -> list[int]:
    """The position of what released each activity; a wait that was over at once stands for what it waited for."""
    shown = {index: place for place, index in enumerate(rows.index.tolist())}
    before = dict(zip(timeline.index.tolist(), timeline["waited_for"].tolist(), strict=True))

    def place(index: int) -> int:
        if index in before and index not in shown:
            index = before[index] if before[index] != NONE else index
        return NONE if index == NONE else shown.get(index, ELSEWHERE)

    return [place(index) for index in rows["waited_for"].tolist()]


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
        "capacity_text": f"capacity {format_memory(peak.capacity_bytes)}",
        "peak": peak.bytes,
        "peak_ns": round(peak.time_s * NS),
        "peak_text": f"peak {format_memory(peak.bytes)} at {format_time(peak.time_s)} ({share:.0%})",
        "time": _ns(rows["time_s"]).tolist(),
        "occupant": [places[name] for name in rows["occupant"].tolist()],
        "bytes": rows["bytes"].round().astype(np.int64).tolist(),
    }
