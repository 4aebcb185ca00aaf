"""Intervals as they are shown: those that overlap side by side, waits from their beginning."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def lanes_of(starts: Sequence[float], ends: Sequence[float]) -> list[int]:
    """A lane for each interval such that none overlap in a lane: all 0 unless phases run at the same time."""
    lanes = [0] * len(starts)
    free_from: list[float] = []
    for index in sorted(range(len(starts)), key=lambda i: (starts[i], ends[i])):
        # A rounding error is no overlap.
        slack = 1e-9 * max(1.0, abs(starts[index]))
        lane = next((i for i, free in enumerate(free_from) if free <= starts[index] + slack), len(free_from))
        free_from[lane : lane + 1] = [ends[index]]
        lanes[index] = lane
    return lanes


def from_their_beginning(timeline: pd.DataFrame) -> pd.DataFrame:
    """The timeline with waits that begin where the thread began to wait.

    An engine may record a wait as the instant at which it is over; it began when it was asked for, or when the
    activity before it on the same thread ended. Other rows are as they were.
    """
    in_order = timeline.sort_values(["start_s", "end_s"], kind="stable")
    threads = in_order.groupby(["rank", "stream"], sort=False)["end_s"]
    before = threads.cummax().groupby([in_order["rank"], in_order["stream"]], sort=False).shift()
    began = timeline["enqueued_s"].clip(lower=before.reindex(timeline.index).fillna(float("-inf")))
    began = began.clip(upper=timeline["start_s"])
    return timeline.assign(start_s=timeline["start_s"].where(timeline["activity"] != "wait", began))
