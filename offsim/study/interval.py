"""From the intervals of hardware values to an interval of the predicted times.

Each value is moved to either end of its 95 % interval, with the others as they are; half of the change of a time's
logarithm is what the value contributes. Contributions of values that err independently add up in quadrature. That is
linear propagation (JCGM 100:2008, section 5.1.2) with slopes taken over the interval rather than in its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from offsim.result import Result
from offsim.study.hardware_values import HardwareValue, Times, hardware_values, times_of, times_with

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

    def spread(self, phase: str = WHOLE) -> float:
        """Half-width of the interval of ln(time): 0.03 is 3 %."""
        return math.hypot(*(swing.change(phase) for swing in self.swings))

    def half_s(self, phase: str = WHOLE) -> float:
        """Half-width in seconds."""
        return self.times[phase] * math.sinh(self.spread(phase))

    def bounds_s(self, phase: str = WHOLE) -> tuple[float, float]:
        """The interval's ends in seconds."""
        spread = self.spread(phase)
        return self.times[phase] * math.exp(-spread), self.times[phase] * math.exp(spread)

    def contributions_s(self, phase: str = WHOLE) -> dict[str, float]:
        """Value -> what it alone would make the half-width, in seconds, largest first; without sign."""
        found = {swing.value.key: self.times[phase] * math.sinh(abs(swing.change(phase))) for swing in self.swings}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, object]:
        """The ends by phase and the contributions to the iteration's, as plain values for JSON."""
        return {
            "level": 0.95,
            "seconds": {phase: self.bounds_s(phase) for phase in self.times},
            "contributions_s": self.contributions_s(),
        }


def interval_of(result: Result) -> Interval | None:
    """Simulate a result's iteration at both ends of each interval; None where its profile has none."""
    times = times_of(result)  # raises DoesNotFit before anything else is simulated
    swings = swings_of(result, [value for value in hardware_values(result.run.profile) if value.interval])
    return Interval(times, tuple(swings)) if swings else None


def swings_of(result: Result, values: list[HardwareValue], otherwise: float = 0.0) -> list[Swing]:
    """Move each value to the ends of its interval, or this share down and up where it has none."""
    swings = []
    for value in values:
        low, high = value.interval or (value.value * (1 - otherwise), value.value * (1 + otherwise))
        swings.append(Swing(value, low, high, times_with(result, value, low), times_with(result, value, high)))
    return swings
