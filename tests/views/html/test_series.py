"""What a page draws is what was simulated, also where it was merged to keep the page small."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from offsim.api import simulate
from offsim.results.result import Result
from offsim.views.html.series import ELSEWHERE, NONE, Names, memory_series, timeline_series
from offsim.views.style import ordered_streams
from offsim.views.timeline import of_rank


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
    series = timeline_series(result.timeline, kinds, rank=0, most=100_000)
    rows = of_rank(result.timeline, 0)
    streams = ordered_streams(rows["stream"])
    rows = rows.assign(place=rows["stream"].map(streams.index)).sort_values(
        ["place", "start_s", "end_s"], kind="stable"
    )
    assert "merged" not in series
    assert [stream for stream, _, _ in spans(series)] == rows["stream"].tolist()
    for column, values in (("start_s", [s for _, s, _ in spans(series)]), ("end_s", [e for _, _, e in spans(series)])):
        assert np.abs(np.array(values) - 1e9 * rows[column].to_numpy()).max() <= 0.5001
    names, limits, known = series["names"], series["limits"], list(kinds)
    assert [names[i] for i in series["name"]] == rows["name"].tolist()
    assert [limits[i] for i in series["limit"]] == rows["limited_by"].tolist()
    assert [known[i] for i in series["kind"]] == rows["activity"].tolist()
    for column in ("subgroup", "layer"):
        assert series[column] == rows[column].tolist()
    assert series["bytes"] == rows["bytes"].round().tolist()


def test_what_released_an_activity_is_followed_through_waits_that_were_over_at_once(result: Result) -> None:
    kinds = Names()
    series = timeline_series(result.timeline, kinds, rank=0, most=100_000)
    timeline, ends = result.timeline, [end for _, _, end in spans(series)]
    wait = list(kinds).index("wait")
    shown = of_rank(timeline, 0).index
    assert any(index not in shown for index in timeline["waited_for"] if index != NONE)
    for (_, start, end), kind, by in zip(spans(series), series["kind"], series["by"], strict=True):
        assert by != ELSEWHERE
        if by != NONE:  # a wait is over when it is released, all others begin then
            assert ends[by] <= (end if kind == wait else start) + 1


@pytest.mark.parametrize("most", [1, 50, 300])
def test_merging_keeps_activities_bytes_and_order(result: Result, most: int) -> None:
    whole = timeline_series(result.timeline, Names(), rank=0, most=100_000)
    series = timeline_series(result.timeline, Names(), rank=0, most=most)
    assert len(series["took"]) <= max(most, 2 * len(series["streams"]))
    assert sum(series["merged"]) == len(whole["took"])
    assert sum(series["bytes"]) == pytest.approx(sum(whole["bytes"]), abs=len(whole["bytes"]))
    found = spans(series)
    for (stream, _, end), (following, start, _) in pairwise(found):
        assert stream != following or end <= start
    many = [size > 1 for size in series["merged"]]
    assert any(many)
    assert all(took <= 2 * series["cell"] for took, merged in zip(series["took"], many, strict=True) if merged)
    assert all(by < len(series["took"]) for by in series["by"])
    # Who holds a stream from when to when is the same, whatever is merged in between.
    for stream in series["streams"]:
        inner = [(s, e) for name, s, e in found if name == stream]
        outer = [(s, e) for name, s, e in spans(whole) if name == stream]
        assert (inner[0][0], inner[-1][1]) == (outer[0][0], outer[-1][1])


def levels(series: dict[str, Any]) -> list[dict[int, int]]:
    """Who holds how much at each instant, read as the page's script does."""
    held: dict[int, int] = {}
    found, i = [], 0
    for count in series["changes"]:
        held |= dict(zip(series["occupant"][i : i + count], series["bytes"][i : i + count], strict=True))
        i += count
        found.append(dict(held))
    return found


@pytest.mark.parametrize("most", [10, 40, 100_000])
def test_memory_keeps_its_peak_and_its_end(result: Result, most: int) -> None:
    memory = result.memory
    places = {name: i for i, name in enumerate(memory["occupant"].unique())}
    for series, peak in zip(memory_series(memory, result.peaks, places, most=most), result.peaks, strict=True):
        rows = memory[memory["tier"] == peak.tier]
        used = [sum(held.values()) for held in levels(series)]
        assert bool(series["cell"]) == (len(rows) > most)
        assert len(used) <= most + 2
        assert max(used) == pytest.approx(peak.bytes, abs=len(places))
        assert used[-1] == pytest.approx(rows["used_bytes"].iloc[-1], abs=len(places))
        assert series["time"][-1] == round(1e9 * rows["time_s"].iloc[-1])
        if not series["cell"]:
            assert used == pytest.approx(rows["used_bytes"].tolist(), abs=len(places))
