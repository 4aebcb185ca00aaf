"""For how long other activities ran beside one."""

from __future__ import annotations

import numpy as np
import pandas as pd


def beside(rows: pd.DataFrame, others: pd.DataFrame, rates: np.ndarray | None = None) -> np.ndarray:
    """Seconds that others ran during each row, summed over the others; with their rates, how much they did then."""
    rates = np.ones(len(others)) if rates is None else rates
    origin = others["start_s"].min() if len(others) else 0.0
    began, ended = others["start_s"].to_numpy() - origin, others["end_s"].to_numpy() - origin

    def done_by(times: np.ndarray) -> np.ndarray:
        return np.asarray(_since(times - origin, began, rates) - _since(times - origin, ended, rates))

    return np.asarray(done_by(rows["end_s"].to_numpy()) - done_by(rows["start_s"].to_numpy()))


def _since(times: np.ndarray, instants: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Of the instants before each time, how long ago they were, times their rates, summed."""
    order = np.argsort(instants)
    rate = np.concatenate([[0.0], np.cumsum(rates[order])])
    offset = np.concatenate([[0.0], np.cumsum(rates[order] * instants[order])])
    before = np.searchsorted(instants[order], times)
    return np.asarray(rate[before] * times - offset[before])
