"""Split-conformal intervals of predictions, from the residuals of held-out runs on the same hardware.

Held-out runs were predicted by a fit that did not use them. If a new run is exchangeable with them, its residual
|log(measured / predicted)| exceeds the k-th smallest of n residuals with probability 1 - k / (n + 1). For 95 %, k is
ceil(0.95 (n + 1)). Below 19 runs that is more than n: the interval uses the largest residual and covers n / (n + 1).
A configuration outside what was measured is not exchangeable with those runs, and gets no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offsim.inputs.errors import InputError
from offsim.platform.held_out import held_out_of
from offsim.results.measured_range import known_profile

if TYPE_CHECKING:
    from offsim.results.result import Result

LEVEL = 0.95
WHOLE = "iteration"


def conformal_rank(runs: int) -> int:
    """The rank of the residual, from the smallest, that bounds a new run's at this level; at most `runs`."""
    return min(math.ceil((runs + 1) * LEVEL - 1e-9), runs)


def conformal_quantile(residuals: Sequence[float]) -> float:
    """The absolute residual that bounds a new run's at this level."""
    return sorted(map(abs, residuals))[conformal_rank(len(residuals)) - 1]


@dataclass(frozen=True)
class PredictionInterval:
    """Interval of a new run's measured times, for each phase and for their sum, the "iteration".

    `spreads` are half-widths in ln(time): 0.03 is 3 %.
    """

    times: Mapping[str, float]
    spreads: Mapping[str, float]
    runs: int
    groups: tuple[str, ...]
    """The groups of runs left out of the fit, one at a time."""

    @property
    def within(self) -> int:
        """The number of held-out runs within the interval."""
        return conformal_rank(self.runs)

    @property
    def coverage(self) -> float:
        """The probability that the interval covers a run exchangeable with those held out."""
        return self.within / (self.runs + 1)

    def bounds_s(self, phase: str = WHOLE) -> tuple[float, float]:
        """Bounds of the interval in seconds."""
        factor = math.exp(self.spreads[phase])
        return self.times[phase] / factor, self.times[phase] * factor

    def half_s(self) -> float:
        """Half-width in seconds."""
        return self.times[WHOLE] * math.sinh(self.spreads[WHOLE])

    def to_dict(self) -> dict[str, object]:
        """Everything as plain values for JSON."""
        return {
            "coverage": self.coverage,
            "runs": self.runs,
            "within": self.within,
            "left_out": list(self.groups),
            "spreads": dict(self.spreads),
            "seconds": {phase: self.bounds_s(phase) for phase in self.spreads},
        }


def interval_dict(result: Result) -> dict[str, object]:
    """The interval as plain values for JSON; without one, None and the reason."""
    if not result.fits:
        return {"interval": None}
    if result.interval is None:
        return {"interval": None, "no_interval": result.no_interval}
    return {"interval": result.interval.to_dict()}


def prediction_interval(result: Result) -> PredictionInterval | str:
    """The interval of a result's times, or the reason for its absence. Raises DoesNotFit."""
    times = {**result.durations, WHOLE: result.iteration_s}
    try:
        path = known_profile(result)
    except InputError as error:
        return error.problem
    held_out = held_out_of(path)
    if held_out is None:
        return f"no measured runs of {result.run.profile.name} were held out of its fit"
    if not result.measured_range.inside:
        known = result.measured_range
        return f"it holds inside the measured range, and {'this is ' if known.configurations else ''}{known}"
    residuals = {WHOLE if phase == "sum" else phase: values for phase, values in held_out.residuals.items()}
    spreads = {phase: conformal_quantile(residuals[phase]) for phase in times if residuals.get(phase)}
    return PredictionInterval(times, spreads, len(residuals[WHOLE]), held_out.groups)
