"""From the intervals of hardware values to an interval of the predicted times.

Each value is moved to either end of its 95 % interval, with the others as they are; half of the change of a time's
logarithm is what the value contributes. Contributions of values that err independently add up in quadrature; where the
profile says that two errors are correlated, so are the contributions. That is linear propagation (JCGM 100:2008,
sections 5.1.2 and 5.2.2) with slopes taken over the interval rather than in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from offsim.results.result import Result
from offsim.study.sensitivities.hardware_values import HardwareValue, Times, hardware_values, times_of, times_with

WHOLE = "iteration"


@dataclass(frozen=True)
class Swing:
    """What moving a value to the two ends of a range does: times there, by phase and "iteration"."""

    value: HardwareValue
    low: float
    high: float
    times_low: Times
    times_high: Times

    def change(self, phase: str) -> float:
        """Half of the change of ln(time) from the range's low to its high end; negative where more is faster."""
        return math.log(self.times_high[phase] / self.times_low[phase]) / 2 if self.times_low[phase] else 0.0


@dataclass(frozen=True)
class Interval:
    """The 95 % interval of the predicted times, as far as the hardware's values are concerned.

    The model's own error is not in it: what is not simulated, or simulated too simply, errs beside it.
    """

    times: Times
    swings: tuple[Swing, ...]
    correlations: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Of the logarithms of two values; those of other pairs are independent."""

    def spread(self, phase: str = WHOLE) -> float:
        """Half-width of the interval of ln(time): 0.03 is 3 %."""
        together = self._together(phase)
        squares = sum(swing.change(phase) * together[swing.value.key] for swing in self.swings)
        return math.sqrt(max(squares, 0.0))  # rounded correlations may leave less than nothing

    def _together(self, phase: str) -> dict[str, float]:
        """Value -> the change of ln(time) as it goes to its high end and others to what is then expected."""
        alone = {swing.value.key: swing.change(phase) for swing in self.swings}
        together = dict(alone)
        for (one, other), correlation in self.correlations.items():
            if one in alone and other in alone:
                together[one] += correlation * alone[other]
                together[other] += correlation * alone[one]
        return together

    def half_s(self, phase: str = WHOLE) -> float:
        """Half-width in seconds."""
        return self.times[phase] * math.sinh(self.spread(phase))

    def bounds_s(self, phase: str = WHOLE) -> tuple[float, float]:
        """The interval's ends in seconds."""
        spread = self.spread(phase)
        return self.times[phase] * math.exp(-spread), self.times[phase] * math.exp(spread)

    def contributions_s(self, phase: str = WHOLE) -> dict[str, float]:
        """Value -> what it alone would make the half-width, in seconds, largest first; without sign."""
        return self._seconds({swing.value.key: swing.change(phase) for swing in self.swings}, phase)

    def together_s(self, phase: str = WHOLE) -> dict[str, float]:
        """The same where the values correlated with it are off too, as they then most likely are."""
        return self._seconds(self._together(phase), phase)

    def _seconds(self, changes: Mapping[str, float], phase: str) -> dict[str, float]:
        found = {key: self.times[phase] * math.sinh(abs(change)) for key, change in changes.items()}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, object]:
        """The ends by phase and the contributions to the iteration's, as plain values for JSON."""
        return {
            "level": 0.95,
            "seconds": {phase: self.bounds_s(phase) for phase in self.times},
            "contributions_s": self.contributions_s(),
            "together_s": self.together_s(),
        }


def interval_of(result: Result) -> Interval | None:
    """Simulate a result's iteration at both ends of each interval; None where its profile has none."""
    times = times_of(result)  # raises DoesNotFit before anything else is simulated
    swings = swings_of(result, [value for value in hardware_values(result.run.profile) if value.interval])
    return Interval(times, tuple(swings), result.run.profile.correlations) if swings else None


def swings_of(result: Result, values: list[HardwareValue], otherwise: float = 0.0) -> list[Swing]:
    """Move each value to the ends of its interval, or this share down and up where it has none."""
    swings = []
    for value in values:
        low, high = value.interval or (value.value * (1 - otherwise), value.value * (1 + otherwise))
        swings.append(Swing(value, low, high, times_with(result, value, low), times_with(result, value, high)))
    return swings
