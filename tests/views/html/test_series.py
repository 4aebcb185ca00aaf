"""What a page draws is what was simulated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offsim.results.limits import KINDS as LIMITS
from offsim.results.result import Result
from offsim.views.html.series import ELSEWHERE, NONE, bandwidth_series, memory_series, timeline_series
from offsim.views.style import grouped_streams
from offsim.views.timeline import of_rank


def test_columns_hold_every_activity(dos: Result) -> None:
    kinds: dict[str, int] = {}
    series = timeline_series(dos, kinds, rank=0)
    rows = of_rank(dos.timeline, 0)
    streams = list(grouped_streams(rows["stream"], rows["activity"]))
    rows = rows.assign(place=rows["stream"].map(streams.index)).sort_values(
        ["place", "start_s", "end_s"], kind="stable"
    )
    count = series["count"]
    assert [series["streams"][i] for i in series["row"][:count]] == rows["stream"].tolist()
    for i, (begin, end) in enumerate(series["rows"]):
        assert series["row"][begin:end] == [i] * (end - begin)
    for column in ("start", "end"):
        assert np.abs(np.array(series[column][:count]) - 1e9 * rows[f"{column}_s"].to_numpy()).max() <= 0.5001
    names, known = series["names"], list(kinds)
    assert [names[i] for i in series["name"]] == rows["name"].tolist()
    assert [known[i] for i in series["kind"][:count]] == rows["activity"].tolist()
    for column, name in {"subgroup": "subgroup", "layer": "layer", "limit": "limited_by", "bytes": "bytes"}.items():
        assert series[column] == rows[name].tolist()
    assert series["early"] == (rows["iteration"] < 1).tolist()
    assert series["streams"] == streams


def test_what_released_an_activity_is_followed_through_waits_that_were_over_at_once(dos: Result) -> None:
    kinds: dict[str, int] = {}
    series = timeline_series(dos, kinds, rank=0)
    timeline, ends = dos.timeline, series["end"]
    wait = list(kinds).index("wait")
    shown = of_rank(timeline, 0).index
    assert any(index not in shown for index in timeline["waited_for"] if index != NONE)
    for start, end, kind, by in zip(series["start"], ends, series["kind"], series["by"], strict=False):
        assert by != ELSEWHERE
        if by != NONE:  # a wait is over when it is released, all others begin then
            assert ends[by] <= (end if kind == wait else start) + 1


def levels(series: dict[str, Any]) -> list[dict[int, int]]:
    """Who holds how much at each instant, read as the page's script does."""
    held: dict[int, int] = {}
    found = []
    for occupant, amount in zip(series["occupant"], series["bytes"], strict=True):
        held[occupant] = amount
        found.append(dict(held))
    return found


def test_memory_is_held_as_simulated(dos: Result) -> None:
    memory = dos.memory
    places = {name: i for i, name in enumerate(memory["occupant"].unique())}
    for series, peak in zip(memory_series(memory, dos.peaks, places), dos.peaks, strict=True):
        rows = memory[memory["tier"] == peak.tier]
        used = [sum(held.values()) for held in levels(series)]
        assert max(used) == pytest.approx(peak.bytes, abs=len(places))
        assert used == pytest.approx(rows["used_bytes"].tolist(), abs=len(places))
        assert series["time"] == np.rint(1e9 * rows["time_s"]).tolist()


def test_the_critical_path_is_as_long_as_the_iteration_and_made_of_its_activities(dos: Result) -> None:
    kinds: dict[str, int] = {}
    series = timeline_series(dos, kinds, rank=0)
    start, end, same, count = (series[name] for name in ("start", "end", "same", "count"))
    assert end[-1] == round(1e9 * dos.iteration_s)
    assert start[count:] == [0, *end[count:-1]]
    spent: dict[str, int] = {}
    for step in range(count, len(start)):
        kind, took = list(kinds)[series["kind"][step]], end[step] - start[step]
        assert took >= 0
        spent[kind] = spent.get(kind, 0) + took
        if same[step] >= 0:
            assert start[same[step]] - 1 <= start[step]
            assert end[step] <= end[same[step]] + 1
    assert sum(series["on_path"]) == sum(end[i] - start[i] for i in range(count, len(start)) if same[i] >= 0)
    # What limits the iteration by its own work is on it, and longer by what contention costs.
    for kind in ("gpu_adam", "cpu_adam", "launch"):
        assert 1e9 * dos.limited_by[LIMITS[kind]] * dos.iteration_s <= spent[kind] + len(start)


def test_links_move_the_bytes_that_the_result_says(dos: Result) -> None:
    bandwidth = dos.bandwidth
    drawn = bandwidth_series(dos)
    assert [link["name"] for link in drawn[:2]] == ["H2D", "D2H"]
    assert {link["name"] for link in drawn} == set(bandwidth.loc[bandwidth["bytes_per_s"] > 0, "resource"])
    for link in drawn:
        rows = bandwidth[bandwidth["resource"] == link["name"]]
        assert link["rate"] == rows["bytes_per_s"].round().tolist()
        assert link["time"] == np.rint(1e9 * rows["time_s"]).tolist()
        moved = np.cumsum(rows["bytes_per_s"].to_numpy()[:-1] * np.diff(rows["time_s"]))
        assert link["moved"] == pytest.approx([0.0, *moved], rel=1e-6, abs=10)
        assert max(link["rate"]) <= 1.001 * link["capacity"]
