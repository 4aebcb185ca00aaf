"""The rate that work reaches undisturbed is found among samples that were disturbed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.trace_fits.fastest import fastest


def samples(seed: int, count: int, noise: float, slowed: float) -> np.ndarray:
    """Rates around 1, of which the share `slowed` are up to ten times slower."""
    draw = np.random.default_rng(seed)
    rates = np.exp(draw.normal(0, noise, count))
    rates[: round(slowed * count)] /= draw.uniform(1.1, 10, round(slowed * count))
    return draw.permutation(rates)


@pytest.mark.parametrize("slowed", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("noise", [0.001, 0.03])
def test_slowed_samples_do_not_move_it(noise: float, slowed: float) -> None:
    for seed in range(5):
        assert fastest(samples(seed, 200, noise, slowed)).value == pytest.approx(1, rel=max(0.7 * noise, 0.003))


@pytest.mark.parametrize("slowed", [0.0, 0.3])
def test_intervals_cover_the_truth(slowed: float) -> None:
    intervals = [fastest(samples(seed, 30, 0.02, slowed)) for seed in range(60)]
    covered = sum(interval.low <= 1 <= interval.high for interval in intervals)
    assert covered >= 51  # 57 expected of 95 %
    assert np.median([interval.spread for interval in intervals]) < 1.05


def test_samples_count_by_their_weight() -> None:
    rates, weights = np.repeat([2.0, 1.0], 50), np.repeat([1.0, 100.0], 50)
    assert fastest(rates).value == pytest.approx(2)
    assert fastest(rates, weights).value == pytest.approx(1)


@settings(max_examples=30)
@given(st.lists(st.floats(1, 1e15), min_size=1, max_size=30), st.floats(0.1, 1e3))
def test_it_is_within_its_interval_and_the_samples_and_scales_with_them(rates: list[float], factor: float) -> None:
    found, scaled = fastest(np.array(rates)), fastest(factor * np.array(rates))
    assert min(rates) <= found.low * (1 + 1e-9)
    assert found.low <= found.value <= found.high <= max(rates) * (1 + 1e-9)
    assert scaled.value == pytest.approx(factor * found.value, rel=1e-6)
