"""Residuals of held-out runs, as profiles' `held_out.json` has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from offsim.calibration.runs.fit import Residuals, relative_errors
from offsim.platform.held_out import Groups, Score

CONFIGURATIONS = "random configurations"
"""What a calibration without a recipe leaves out of the fit."""


def scores(residuals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    """Phase -> errors of one group's runs."""
    return {phase: _score(values) for phase, values in residuals.items()}


def scores_by_hardware(left_out: Mapping[str, Residuals]) -> dict[str, Groups]:
    """Hardware -> group -> phase -> errors, of the residuals of each group by hardware."""
    found: dict[str, Groups] = {}
    for group, residuals in left_out.items():
        for hardware, phases in residuals.items():
            found.setdefault(hardware, {})[group] = scores(phases)
    return found


def _score(residuals: np.ndarray) -> Score:
    percentiles = np.percentile(100 * relative_errors(residuals), [50, 90, 100]).tolist()
    median, p90, worst = (round(percentile, 2) for percentile in percentiles)
    return Score(n=len(residuals), median=median, p90=p90, worst=worst, residuals=tuple(residuals.round(5).tolist()))
