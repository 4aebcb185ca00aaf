"""The interval of a prediction, from how far measured runs on the same hardware were from theirs.

The runs are held out: predicted by a fit that did not use them. If a new run is like them (exchangeable), the k-th
smallest of n residuals |log(measured / predicted)| is exceeded by the new one's with a probability of 1 - k / (n + 1):
split-conformal prediction. For 95 %, k is ceil(0.95 (n + 1)); below 19 runs that is more than n. Then the widest
residual counts, and the interval covers n / (n + 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offsim.inputs.errors import InputError
from offsim.platform.held_out import HeldOut, held_out_of
from offsim.platform.profiles import load_profile, profile_file

if TYPE_CHECKING:
    from offsim.results.result import Result

LEVEL = 0.95
WHOLE = "iteration"


def conformal_rank(runs: int) -> int:
    """Which of so many residuals, counted from the smallest, bounds that of a new run; the last where none does."""
    return min(math.ceil((runs + 1) * LEVEL - 1e-9), runs)


def conformal_quantile(residuals: Sequence[float]) -> float:
    """The absolute residual that bounds that of a new run."""
    return sorted(map(abs, residuals))[conformal_rank(len(residuals)) - 1]


@dataclass(frozen=True)
class PredictionInterval:
    """Where the measured times of a new run lie, phase by phase and for the "iteration", which is their sum.

    `spreads` are half-widths of the interval of ln(time): 0.03 is 3 %.
    """

    times: Mapping[str, float]
    spreads: Mapping[str, float]
    runs: int
    groups: tuple[str, ...]
    """What was left out of the fit, one by one."""

    @property
    def within(self) -> int:
        """How many of the runs are no farther from their prediction than the interval reaches."""
        return conformal_rank(self.runs)

    @property
    def coverage(self) -> float:
        """The probability that the interval holds the time of a run like those held out."""
        return self.within / (self.runs + 1)

    def bounds_s(self, phase: str = WHOLE) -> tuple[float, float]:
        """The interval's ends in seconds."""
        factor = math.exp(self.spreads[phase])
        return self.times[phase] / factor, self.times[phase] * factor

    def half_s(self, phase: str = WHOLE) -> float:
        """Half-width in seconds."""
        return self.times[phase] * math.sinh(self.spreads[phase])

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
    """The interval as plain values for JSON, None where there is none, and then why."""
    if not result.fits:
        return {"interval": None}
    if result.interval is None:
        return {"interval": None, "no_interval": result.no_interval}
    return {"interval": result.interval.to_dict()}


def prediction_interval(result: Result) -> PredictionInterval | str:
    """The interval of a result's times, or why there is none. Raises DoesNotFit."""
    times = {**result.durations, WHOLE: result.iteration_s}
    held_out = _held_out(result)
    if isinstance(held_out, str):
        return held_out
    residuals = {WHOLE if phase == "sum" else phase: values for phase, values in held_out.residuals.items()}
    spreads = {phase: conformal_quantile(residuals[phase]) for phase in times if residuals.get(phase)}
    return PredictionInterval(times, spreads, len(residuals[WHOLE]), held_out.groups)


def _held_out(result: Result) -> HeldOut | str:
    """The held-out runs on a result's hardware, or why there are none."""
    scenario, profile = result.scenario, result.run.profile
    if scenario.hardware_changes:
        return "no runs were measured on this hardware, which hardware_changes make"
    try:
        path = profile_file(scenario.hardware, scenario.folder)
        known = load_profile(path) == profile
    except InputError:
        known = False
    if not known:
        return f"{profile.name} was given in Python, not by its file"
    return held_out_of(path) or f"no measured runs of {profile.name} were held out of its fit"
