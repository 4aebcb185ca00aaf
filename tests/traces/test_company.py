"""For how long activities run beside others agrees with looking at each pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.traces.company import beside

SPANS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 300)), max_size=12)


def table(spans: list[tuple[int, int]]) -> pd.DataFrame:
    starts = np.array([start for start, _ in spans], dtype=float)
    return pd.DataFrame({"start_s": starts, "end_s": starts + np.array([took for _, took in spans], dtype=float)})


@given(SPANS, SPANS, st.floats(0.1, 10))
def test_all_pairs(mine: list[tuple[int, int]], others: list[tuple[int, int]], rate: float) -> None:
    rates = rate * np.arange(1, len(others) + 1)
    shared = [[max(min(a + m, b + n) - max(a, b), 0) for b, n in others] if others else [0] for a, m in mine]
    assert beside(table(mine), table(others)) == pytest.approx([sum(row) for row in shared], abs=1e-6)
    weighted = [float(np.dot(row, rates)) if others else 0.0 for row in shared]
    assert beside(table(mine), table(others), rates) == pytest.approx(weighted, abs=1e-4)
