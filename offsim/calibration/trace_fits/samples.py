"""Estimates from samples of a trace: the times they are made of, and how many they need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from offsim.calibration.microbenchmarks.estimate import Estimate
from offsim.calibration.robust import SEED, Interval
from offsim.calibration.trace_fits.fastest import fastest

FEWEST = 5
"""Samples that an estimate needs: the interval of fewer says nothing."""
LARGE_BYTES = 1e6
"""Copies and messages from this size on give a rate: their fixed time is small against the rest."""
SMALL_BYTES = 16_384
"""Copies and messages up to this size give the fixed time."""
ALONE = 0.05
"""Work counts as alone if other work ran for less than this share of its time."""
_WHOLE_NS = 1000


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that took time, with the `seconds` that they took.

    Old files have whole microseconds. One of these may have been 0.5 or 1.5, and is taken for anything between: so that
    equal times do not pass for exact ones.
    """
    seconds = (rows["end_s"] - rows["start_s"]).to_numpy()
    if len(rows) and (np.rint(1e9 * seconds) % _WHOLE_NS == 0).all():
        drawn = np.random.default_rng(SEED).uniform(-0.5, 0.5, len(rows)) * _WHOLE_NS * 1e-9
        seconds = np.where(seconds > 0, seconds + drawn, 0.0)
    return rows.assign(seconds=seconds)[seconds > 0]


def rate(field: str, amounts: np.ndarray, seconds: np.ndarray) -> Iterator[Estimate]:
    """Amount per second, where there are enough samples; each counts by its amount."""
    if len(amounts) >= FEWEST:
        yield Estimate(field, fastest(amounts / seconds, amounts), len(amounts))


def fixed_time(field: str, seconds: np.ndarray) -> Iterator[Estimate]:
    """The shortest time that is no exception, where there are enough samples."""
    if len(seconds) >= FEWEST:
        inverse = fastest(1 / seconds)
        interval = Interval(1 / inverse.value, 1 / inverse.high, 1 / inverse.low)
        yield Estimate(field, interval, len(seconds))
