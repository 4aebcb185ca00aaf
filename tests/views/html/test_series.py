"""What a page draws is what was simulated."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from offsim.api import simulate
from offsim.results.limits import KINDS as LIMITS
from offsim.results.result import Result
from offsim.views.html.series import ELSEWHERE, NONE, Names, bandwidth_series, memory_series, packed, timeline_series
from offsim.views.style import grouped_streams
from offsim.views.timeline import of_rank
from tests.views.html.unpacking import unpacked


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate("dos_20b_4xh100")


def spans(series: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(stream, start, end) in nanoseconds, read as the page's script does."""
    found, i = [], 0
    for stream, count in zip(series["streams"], series["counts"], strict=True):
        before = 0
        for _ in range(count):
            start = before + series["gap"][i]
            before = start + series["took"][i]
            found.append((stream, start, before))
            i += 1
    return found


def test_columns_hold_every_activity(result: Result) -> None:
    kinds = Names()
    series = timeline_series(result, kinds, rank=0)
    rows = of_rank(result.timeline, 0)
    streams = list(grouped_streams(rows["stream"], rows["activity"]))
    rows = rows.assign(place=rows["stream"].map(streams.index)).sort_values(
        ["place", "start_s", "end_s"], kind="stable"
    )
    assert [stream for stream, _, _ in spans(series)] == rows["stream"].tolist()
    for column, values in (("start_s", [s for _, s, _ in spans(series)]), ("end_s", [e for _, _, e in spans(series)])):
        assert np.abs(np.array(values) - 1e9 * rows[column].to_numpy()).max() <= 0.5001
    names, limits, known = series["names"], series["limits"], list(kinds)
    assert [names[i] for i in series["name"]] == rows["name"].tolist()
    assert [limits[i] for i in series["limit"]] == rows["limited_by"].tolist()
    assert [known[i] for i in series["kind"]] == rows["activity"].tolist()
    for column in ("subgroup", "layer"):
        assert series[column] == rows[column].tolist()
    assert [series["sizes"][i] for i in series["size"]] == rows["bytes"].round().tolist()
    assert series["early"] == np.flatnonzero(rows["iteration"] < 1).tolist()
    assert series["streams"] == streams


def test_what_released_an_activity_is_followed_through_waits_that_were_over_at_once(result: Result) -> None:
    kinds = Names()
    series = timeline_series(result, kinds, rank=0)
    timeline, ends = result.timeline, [end for _, _, end in spans(series)]
    wait = list(kinds).index("wait")
    shown = of_rank(timeline, 0).index
    assert any(index not in shown for index in timeline["waited_for"] if index != NONE)
    for (_, start, end), kind, by in zip(spans(series), series["kind"], series["by"], strict=True):
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


def test_memory_is_held_as_simulated(result: Result) -> None:
    memory = result.memory
    places = {name: i for i, name in enumerate(memory["occupant"].unique())}
    for series, peak in zip(memory_series(memory, result.peaks, places), result.peaks, strict=True):
        rows = memory[memory["tier"] == peak.tier]
        used = [sum(held.values()) for held in levels(series)]
        assert max(used) == pytest.approx(peak.bytes, abs=len(places))
        assert used == pytest.approx(rows["used_bytes"].tolist(), abs=len(places))
        assert sum(series["gap"]) == round(1e9 * rows["time_s"].iloc[-1])


def test_the_critical_path_is_as_long_as_the_iteration_and_made_of_its_activities(result: Result) -> None:
    kinds = Names()
    series = timeline_series(result, kinds, rank=0)
    path, shown = series["path"], spans(series)
    edges = np.concatenate([[0], np.cumsum(path["took"])])
    assert edges[-1] == round(1e9 * result.iteration_s)
    assert min(path["took"]) >= 0
    others = iter(path["kind"])
    spent: dict[str, int] = {}
    for step, (start, end) in zip(path["of"], itertools.pairwise(edges), strict=True):
        kind = list(kinds)[series["kind"][step] if step >= 0 else next(others)]
        spent[kind] = spent.get(kind, 0) + int(end - start)
        if step >= 0:
            assert shown[step][1] - 1 <= start <= end <= shown[step][2] + 1
    # What limits the iteration by its own work is on it, and longer by what contention costs.
    for kind in ("gpu_adam", "cpu_adam", "launch"):
        assert 1e9 * result.limited_by[LIMITS[kind]] * result.iteration_s <= spent[kind] + len(edges)


def test_links_move_the_bytes_that_the_result_says(result: Result) -> None:
    bandwidth = result.bandwidth
    drawn = bandwidth_series(result)
    assert [link["name"] for link in drawn[:2]] == ["H2D", "D2H"]
    assert {link["name"] for link in drawn} == set(bandwidth.loc[bandwidth["bytes_per_s"] > 0, "resource"])
    for link in drawn:
        rows = bandwidth[bandwidth["resource"] == link["name"]]
        assert [link["rates"][i] for i in link["rate"]] == rows["bytes_per_s"].round().tolist()
        assert np.cumsum(link["gap"]).tolist() == np.rint(1e9 * rows["time_s"]).tolist()
        assert max(link["rates"]) <= 1.001 * link["capacity"]


def test_numbers_are_packed_without_loss() -> None:
    document = {"a": [0, 0, 0, -1, 35, 36, 10**12], "b": [{"c": []}, "text", 1.5, [7]], "d": True}
    text = packed(document)
    assert text["a"]["ints"].startswith("0*3 -1 z 10 ")
    assert unpacked(text) == document
