"""Waits as they are shown."""

from __future__ import annotations

import pandas as pd


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
