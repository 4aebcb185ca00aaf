"""Fits of positive constants to timed repetitions, unmoved by outliers, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

RESAMPLES = 100
CONFIDENCE = 0.95
NOISE = 0.02
"""Relative error from which a size weighs less than quadratically."""
SEED = 20240305
"""Of the resampling: the same measurements give the same intervals."""


class Interval(NamedTuple):
    """A fitted constant, and the bounds that it lies within at `CONFIDENCE`."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The upper over the lower bound."""
        return self.high / self.low

    def times(self, factor: float) -> Interval:
        """The interval of so many times the constant."""
        return Interval(*(factor * number for number in self))


def percentile_interval(log: float, drawn: Sequence[float] | np.ndarray) -> Interval:
    """The constant with this logarithm, and the bounds at `CONFIDENCE` of the logarithms that redrawn samples gave."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(*(float(number) for number in np.exp([log, min(low, log), max(high, log)])))


Model = Callable[[np.ndarray], np.ndarray]
"""Constants -> seconds of each timed case."""


def fit_seconds(model: Model, start: Sequence[float], seconds: Sequence[Sequence[float]]) -> list[Interval]:
    """Constants with which the model's seconds come closest to the repetitions of each timed case.

    A case counts by the median of its repetitions. Errors are relative, since cases span decades. The interval of a
    constant is that of fits to repetitions redrawn from all residuals: few repetitions a case say little on their own.
    """
    logs = [np.log(np.asarray(times, dtype=float)) for times in seconds]
    initial = np.log(np.asarray(start, dtype=float))
    best = _fit(model, initial, np.array([np.median(times) for times in logs]))
    fitted = np.log(model(np.exp(best)))
    residuals = np.concatenate([times - at for times, at in zip(logs, fitted, strict=True)])
    residuals -= np.median(residuals)
    freedom = max(len(logs) - len(initial), 1)
    residuals *= (len(logs) / freedom) ** 0.5  # fitted to, they are smaller than the errors were
    draw = np.random.default_rng(SEED)
    cases = list(zip(logs, fitted, strict=True))
    drawn = [
        _fit(model, best, np.array([at + np.median(draw.choice(residuals, len(times))) for times, at in cases]))
        for _ in range(RESAMPLES)
    ]
    return [percentile_interval(log, logs_drawn) for log, logs_drawn in zip(best, np.transpose(drawn), strict=True)]


def _fit(model: Model, start: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Logarithms of the constants."""

    def residuals(z: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(model(np.exp(z))) - observed)

    solution = least_squares(residuals, start, loss="soft_l1", f_scale=NOISE, bounds=(start - 30, start + 30))
    return np.asarray(solution.x)


def medians(cases: Sequence[Sequence[float]]) -> list[Interval]:
    """The median of each case's repetitions, where those of all cases scatter alike.

    The intervals are those of medians of as many repetitions redrawn from the residuals of all cases.
    """
    logs = [np.log(np.asarray(times, dtype=float)) for times in cases]
    # About their own median they are smaller than the errors were.
    residuals = [(times - np.median(times)) * (len(times) / max(len(times) - 1, 1)) ** 0.5 for times in logs]
    draw = np.random.default_rng(SEED)
    found = []
    for times in logs:
        errors = np.median(draw.choice(np.concatenate(residuals), (10 * RESAMPLES, len(times))), axis=1)
        found.append(percentile_interval(float(np.median(times)), np.median(times) + errors))
    return found
