"""What a page draws over time, as columns of whole numbers: activities in nanoseconds, changes of memory in bytes.

Longer series than a page should carry lose detail that only far zooming in would show, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from offsim.results.records import Peak
from offsim.results.units import format_memory, format_time
from offsim.views.memory import OFF_SCALE_BELOW
from offsim.views.style import ordered_streams
from offsim.views.timeline import every_second, of_rank, slowed_rows

MAX_ACTIVITIES = 40_000
"""Of all timelines of a page: some 2 MB."""
MAX_CHANGES = 40_000
"""Of all memory of a page: some 1 MB."""
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


def timeline_series(timeline: pd.DataFrame, kinds: Names, *, rank: int, most: int) -> dict[str, Any]:
    """The activities of a rank, stream by stream in order of time; at most about `most` of them.

    Where there are more, short ones that begin in the same instant's cell of their stream become one: "merged" has how
    many each one stands for, "cell" is the cell's length.
    """
    rows = of_rank(timeline, rank)
    streams = ordered_streams(rows["stream"])
    place = rows["stream"].map({name: i for i, name in enumerate(streams)}).to_numpy(dtype=int)
    order = np.lexsort((rows["end_s"], rows["start_s"], place))
    rows, place = rows.iloc[order], place[order]
    start, end = _ns(rows["start_s"]), _ns(rows["end_s"])
    group, cell = _groups(place, start, end, most)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    size = np.diff(np.append(first, len(group)))
    single = size == 1
    took = np.maximum.reduceat(end, first) - start[first]
    longest = _longest(group, end - start)

    def alone(values: Any, merged: int) -> list[int]:
        """A column: the value of what stands alone, another one for what was merged."""
        column: list[int] = np.where(single, np.asarray(values)[first], merged).astype(np.int64).tolist()
        return column

    subgroup, layer = rows["subgroup"].to_numpy(dtype=int), rows["layer"].to_numpy(dtype=int)
    light = every_second(place, subgroup) | every_second(place, layer)
    waited = np.where(rows["activity"] == "wait", 0, start - np.minimum(_ns(rows["enqueued_s"]), start))
    names, limits = Names(""), Names("")
    before = np.append(0, (start[first] + took)[:-1])
    before[np.diff(place[first], prepend=NONE) != 0] = 0
    series: dict[str, Any] = {
        "streams": streams,
        "counts": np.bincount(place[first], minlength=len(streams)).tolist(),
        "gap": (start[first] - before).tolist(),
        "took": took.tolist(),
        "alone": alone(np.where(slowed_rows(rows), _ns(rows["alone_s"]), 0), 0),
        "waited": alone(waited, 0),
        "kind": kinds.places(rows["activity"].to_numpy()[longest].tolist()),
        "light": alone(light, 0),
        "name": [i if one else 0 for i, one in zip(names.places(rows["name"].to_numpy()[first]), single, strict=True)],
        "subgroup": alone(subgroup, NONE),
        "layer": alone(layer, NONE),
        "bytes": np.add.reduceat(rows["bytes"].to_numpy(), first).round().astype(np.int64).tolist(),
        "by": alone(_released_by(timeline, rows, group), NONE),
        "limit": alone(limits.places(rows["limited_by"].tolist()), 0),
    }
    if cell:
        series |= {"merged": size.tolist(), "cell": cell}
    return series | {"names": list(names), "limits": list(limits)}


def _ns(seconds: pd.Series[float]) -> np.ndarray:
    whole: np.ndarray = np.rint(seconds.to_numpy(dtype=float) * NS).astype(np.int64)
    return whole


def _groups(place: np.ndarray, start: np.ndarray, end: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """The group of each activity, ascending, and the length of the cells that made them; 0 where all stand alone."""
    cell = 0
    most = max(most, 2 * (int(place.max()) + 1))  # a stream is at least one group, two around time zero
    heads = np.ones(len(start), dtype=bool)
    while heads.sum() > most:
        cell = cell * 2 or max(1, int(end.max() - start.min()) // most)
        short = end - start < cell
        within = start // cell
        heads[1:] = ~(short[1:] & short[:-1] & (within[1:] == within[:-1]) & (place[1:] == place[:-1]))
    return np.cumsum(heads) - 1, cell


def _longest(group: np.ndarray, took: np.ndarray) -> np.ndarray:
    """The position of the longest activity of each group."""
    order = np.lexsort((-took, group))
    found: np.ndarray = order[np.flatnonzero(np.diff(group[order], prepend=-1))]
    return found


def _released_by(timeline: pd.DataFrame, rows: pd.DataFrame, group: np.ndarray) -> np.ndarray:
    """The group of what released each activity; a wait that was over at once stands for what it waited for."""
    shown = dict(zip(rows.index.tolist(), group.tolist(), strict=True))
    before = dict(zip(timeline.index.tolist(), timeline["waited_for"].tolist(), strict=True))

    def place(index: int) -> int:
        if index in before and index not in shown:
            index = before[index] if before[index] != NONE else index
        return NONE if index == NONE else shown.get(index, ELSEWHERE)

    return np.array([place(index) for index in rows["waited_for"].tolist()], dtype=np.int64)


def memory_series(
    memory: pd.DataFrame, peaks: Sequence[Peak], places: Mapping[str, int], *, most: int
) -> list[dict[str, Any]]:
    """What each occupant of each tier holds from an instant on; at most about `most` instants of a tier.

    Where there are more, of each cell of time the most that was used and the last are kept.
    """
    tiers = set(memory["tier"])
    return [_tier(memory[memory["tier"] == peak.tier], peak, places, most) for peak in peaks if peak.tier in tiers]


def _tier(rows: pd.DataFrame, peak: Peak, places: Mapping[str, int], most: int) -> dict[str, Any]:
    times, used = _ns(rows["time_s"]), rows["used_bytes"].to_numpy(dtype=float)
    kept, cell = _instants(times, used, most)
    held: dict[int, int] = {}
    before: dict[int, int] = {}
    columns: dict[str, list[int]] = {"time": [], "changes": [], "occupant": [], "bytes": []}
    occupants = [places[name] for name in rows["occupant"].tolist()]
    for i, (occupant, amount) in enumerate(zip(occupants, rows["bytes"].round().astype("int64").tolist(), strict=True)):
        held[occupant] = amount
        if not kept[i]:
            continue
        changed = [name for name, now in held.items() if before.get(name, 0) != now]
        columns["time"].append(int(times[i]))
        columns["changes"].append(len(changed))
        columns["occupant"] += changed
        columns["bytes"] += [held[name] for name in changed]
        before = dict(held)
    share = peak.bytes / peak.capacity_bytes
    return {
        "tier": peak.tier,
        "capacity": peak.capacity_bytes,
        "on_scale": share >= OFF_SCALE_BELOW,
        "capacity_text": f"capacity {format_memory(peak.capacity_bytes)}",
        "peak": peak.bytes,
        "peak_ns": round(peak.time_s * NS),
        "peak_text": f"peak {format_memory(peak.bytes)} at {format_time(peak.time_s)} ({share:.0%})",
        "cell": cell,
        **columns,
    }


def _instants(times: np.ndarray, used: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Which rows are kept, and the length of the cells that chose them; 0 where all are."""
    if len(times) <= most:
        return np.ones(len(times), dtype=bool), 0
    cell = max(1, 2 * int(times[-1] - times[0]) // most + 1)
    within = times // cell
    kept = np.append(np.diff(within) != 0, True)
    kept[_longest(np.cumsum(np.diff(within, prepend=within[0]) != 0), used)] = True
    return kept, cell
