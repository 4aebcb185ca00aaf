"""Operations on spans agree with counting instants and with looking at each pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.traces.spans import intersection, length, merged, overlap_s, without

SPANS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 300)), max_size=12)


def table(spans: list[tuple[int, int]]) -> pd.DataFrame:
    starts = np.array([start for start, _ in spans], dtype=float)
    return pd.DataFrame({"start_s": starts, "end_s": starts + np.array([took for _, took in spans], dtype=float)})


@given(SPANS, SPANS, st.floats(0.1, 10))
def test_all_pairs(mine: list[tuple[int, int]], others: list[tuple[int, int]], rate: float) -> None:
    rates = rate * np.arange(1, len(others) + 1)
    shared = [[max(min(a + m, b + n) - max(a, b), 0) for b, n in others] if others else [0] for a, m in mine]
    assert overlap_s(table(mine), table(others)) == pytest.approx([sum(row) for row in shared], abs=1e-6)
    weighted = [float(np.dot(row, rates)) if others else 0.0 for row in shared]
    assert overlap_s(table(mine), table(others), rates) == pytest.approx(weighted, abs=1e-4)


SMALL = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=12)


@given(SMALL, SMALL)
def test_sets_of_instants(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    def instants(intervals: list[tuple[int, int]]) -> set[int]:
        return {t for start, size in intervals for t in range(start, start + size)}

    def joined(intervals: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        starts = np.array([start for start, _ in intervals], dtype=float)
        return merged(starts, starts + np.array([size for _, size in intervals], dtype=float))

    assert length(joined(a)) == len(instants(a))
    assert length(intersection(joined(a), joined(b))) == len(instants(a) & instants(b))
    assert length(without(joined(a), joined(b))) == len(instants(a) - instants(b))


def test_small_gaps_are_closed() -> None:
    starts, ends = merged(np.array([5.0, 0.0, 3.0]), np.array([6.0, 1.0, 4.0]), 1.0)
    assert starts.tolist() == [0.0, 3.0]
    assert ends.tolist() == [1.0, 6.0]
