"""Constants come back from noisy repetitions with outliers, and lie in their intervals as often as these promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.robust import Interval, fit_seconds, medians

SIZES = np.array([2.0**power for power in range(12, 31, 2)])


def copies(latency: float, rate: float, seed: int, noise: float) -> list[Interval]:
    draw = np.random.default_rng(seed)
    times = (latency + SIZES / rate)[:, None] * np.exp(draw.normal(0, noise, (len(SIZES), 7)))
    times[draw.random(times.shape) < 0.05] *= 5
    return fit_seconds(lambda v: v[0] + SIZES / v[1], [times.min(), 1e10], times.tolist())


def test_intervals_cover_the_truth() -> None:
    fits = [copies(1e-5, 5e10, seed, 0.03) for seed in range(20)]
    for index, truth in enumerate((1e-5, 5e10)):
        covered = [fit[index].low <= truth <= fit[index].high for fit in fits]
        assert sum(covered) >= 16  # 19 are promised; 16 or fewer happen once in 100 times
        assert max(fit[index].spread for fit in fits) < 1.1


def test_intervals_of_medians_cover_the_truth() -> None:
    truths = np.array([1e-3, 2e-2, 0.5])
    covered = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        times = truths[:, None] * np.exp(draw.normal(0, 0.03, (3, 7)))
        times[draw.random(times.shape) < 0.05] *= 5
        found = medians(times.tolist())
        covered += sum(one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True))
        assert [one.value for one in found] == pytest.approx(np.median(times, axis=1))
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_a_single_time_is_its_own_median() -> None:
    assert medians([[0.25]])[0] == pytest.approx((0.25, 0.25, 0.25))


@settings(max_examples=15, deadline=None)
@given(latency=st.floats(1e-6, 1e-4), rate=st.floats(1e9, 4e11), noise=st.floats(1e-4, 0.05), seed=st.integers(0, 99))
def test_constants_come_back(latency: float, rate: float, noise: float, seed: int) -> None:
    for interval, truth in zip(copies(latency, rate, seed, noise), (latency, rate), strict=True):
        assert interval.low <= interval.value <= interval.high
        assert interval.value == pytest.approx(truth, rel=4 * (interval.spread - 1) + 1e-3)


def test_exact_times_have_exact_constants() -> None:
    times = [[1e-5 + size / 5e10] * 3 for size in SIZES]
    found = fit_seconds(lambda v: v[0] + SIZES / v[1], [1e-6, 1e10], times)
    assert [interval.value for interval in found] == pytest.approx([1e-5, 5e10], rel=1e-5)
    assert max(interval.spread for interval in found) < 1.0001
