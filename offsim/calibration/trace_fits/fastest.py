"""What work reaches undisturbed, from samples that were often disturbed: what contends only becomes slower."""

from __future__ import annotations

import numpy as np

from offsim.calibration.robust import RESAMPLES, SEED, Interval, percentile_interval

UPPER = 0.75
"""Up to this share of the work may have been slower than undisturbed work is."""
SPREADS = 5.0
"""What is so many times as far below the upper quartile as half of what is above is above it, was disturbed; of a
normal distribution that keeps 95 %."""
LEAST = 0.02
"""Relative distance below the upper quartile that is kept in any case."""


def fastest(rates: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """The median of undisturbed rates, and the interval of it that redrawn samples give.

    `weights` say how much work each rate stands for.
    """
    logs, shares = _ordered(rates, weights)
    count, value = len(logs), _undisturbed(logs, shares)
    draw = np.random.default_rng(SEED)
    times = (draw.multinomial(count, np.full(count, 1 / count)) for _ in range(RESAMPLES))
    drawn = [_undisturbed(logs[drawn > 0], (shares * drawn)[drawn > 0]) for drawn in times]
    return percentile_interval(value, drawn)


def shortest(seconds: np.ndarray) -> float:
    """The median of undisturbed times."""
    return float(np.exp(-_undisturbed(*_ordered(1 / np.asarray(seconds, dtype=float)))))


def _ordered(rates: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms in their order, and their weights."""
    order = np.argsort(rates)
    shares = np.ones(len(order)) if weights is None else np.asarray(weights, dtype=float)[order]
    return np.log(np.asarray(rates, dtype=float)[order]), shares


def _undisturbed(logs: np.ndarray, weights: np.ndarray) -> float:
    upper = _quantile(logs, weights, UPPER)
    above = logs > upper
    excess = _quantile(logs[above], weights[above], 0.5) - upper if above.any() else 0.0
    kept = logs >= upper - max(SPREADS * excess, LEAST)
    return _quantile(logs[kept], weights[kept], 0.5)


def _quantile(ordered: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The value that has the share of the weight below it, in the middle of its own weight."""
    ends = np.cumsum(weights)
    return float(np.interp(share * ends[-1], ends - weights / 2, ordered))
