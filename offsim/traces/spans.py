"""Spans of time: unions, intersections, and how long activities overlap others."""

from __future__ import annotations

import numpy as np
import pandas as pd

Spans = tuple[np.ndarray, np.ndarray]
"""Starts and ends of spans that do not touch, in order."""


def union(rows: pd.DataFrame, gap_s: float = 0.0) -> Spans:
    """The time in which any of the rows ran; gaps of no more than `gap_s` are closed."""
    return merged(rows["start_s"].to_numpy(), rows["end_s"].to_numpy(), gap_s)


def merged(starts: np.ndarray, ends: np.ndarray, gap_s: float = 0.0) -> Spans:
    """The union of spans in any order; gaps of no more than `gap_s` are closed."""
    if len(starts) == 0:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > ends[:-1] + gap_s])
    return starts[first], ends[np.concatenate([first[1:], [True]])]


def length(spans: Spans) -> float:
    """Sum of the spans' lengths."""
    return float((spans[1] - spans[0]).sum())


def without(spans: Spans, others: Spans) -> Spans:
    """The parts of spans outside the others."""
    if len(others[0]) == 0 or len(spans[0]) == 0:
        return spans
    low = min(spans[0][0], others[0][0]) - 1.0
    high = max(spans[1][-1], others[1][-1]) + 1.0
    gaps = np.concatenate([[low], others[1]]), np.concatenate([others[0], [high]])
    return intersection(spans, gaps)


def intersection(a: Spans, b: Spans) -> Spans:
    """The time in both."""
    first = np.searchsorted(b[1], a[0], side="right")
    last = np.searchsorted(b[0], a[1], side="left")
    counts = np.maximum(last - first, 0)
    in_a = np.repeat(np.arange(len(a[0])), counts)
    in_b = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return np.maximum(a[0][in_a], b[0][in_b]), np.minimum(a[1][in_a], b[1][in_b])


def overlap_s(rows: pd.DataFrame, others: pd.DataFrame, rates: np.ndarray | None = None) -> np.ndarray:
    """Seconds for which others ran during each row, summed over the others; with rates, how much they did meanwhile."""
    rates = np.ones(len(others)) if rates is None else rates
    origin = others["start_s"].min() if len(others) else 0.0
    starts, ends = others["start_s"].to_numpy() - origin, others["end_s"].to_numpy() - origin

    def done_by(times: np.ndarray) -> np.ndarray:
        return np.asarray(_elapsed(times - origin, starts, rates) - _elapsed(times - origin, ends, rates))

    return np.asarray(done_by(rows["end_s"].to_numpy()) - done_by(rows["start_s"].to_numpy()))


def _elapsed(times: np.ndarray, instants: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """The time since each instant that lies before, times its rate, summed over the instants."""
    order = np.argsort(instants)
    rate = np.concatenate([[0.0], np.cumsum(rates[order])])
    offset = np.concatenate([[0.0], np.cumsum(rates[order] * instants[order])])
    before = np.searchsorted(instants[order], times)
    return np.asarray(rate[before] * times - offset[before])
