"""What a page draws is what was simulated."""

from __future__ import annotations

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
    series = timeline_series(result.timeline, kinds, rank=0)
    rows = of_rank(result.timeline, 0)
    streams = ordered_streams(rows["stream"])
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
    assert series["bytes"] == rows["bytes"].round().tolist()


def test_what_released_an_activity_is_followed_through_waits_that_were_over_at_once(result: Result) -> None:
    kinds = Names()
    series = timeline_series(result.timeline, kinds, rank=0)
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
        assert series["time"][-1] == round(1e9 * rows["time_s"].iloc[-1])
