"""How an iteration's time depends on each value of its hardware."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from offsim.api import simulate
from offsim.results.interval import interval_dict
from offsim.results.result import Result
from offsim.results.simulate import Source
from offsim.study.sensitivities.hardware_values import HardwareValue, Times, hardware_values, times_of, times_with

if TYPE_CHECKING:
    import pandas as pd

    from offsim.views.figure import Picture

STEP = 0.01
"""Of ln(value), either way: below what most values are known to, and wide enough to even out small bends."""
NOTHING = 1e-6
"""An elasticity up to this is rounding."""
OTHERWISE = 0.1
"""How far a picture moves values without an interval, as a share."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A value of the hardware and how the times follow it."""

    value: HardwareValue
    elasticity: Times
    """Phase, and "iteration" -> percent of time per percent of the value, by central differences over STEP."""
    below: float = 0.0
    above: float = 0.0
    """The iteration's elasticity for a little less and for a little more: they differ where the time bends or jumps."""

    @property
    def matters(self) -> bool:
        """Whether any of the times follows it."""
        return any(abs(elasticity) > NOTHING for elasticity in self.elasticity.values())


class Sensitivity:
    """What a simulated iteration depends on. `effects` are sorted by the iteration's elasticity, the largest first."""

    def __init__(self, result: Result, effects: Sequence[Effect]) -> None:
        self.result = result
        self.effects = sorted(effects, key=lambda effect: -abs(effect.elasticity["iteration"]))

    @property
    def columns(self) -> tuple[str, ...]:
        """The iteration and its phases: the keys of elasticities."""
        return ("iteration", *self.result.durations)

    @cached_property
    def ranges(self) -> pd.DataFrame:
        """The iteration's time with each value that matters at the ends of its interval, else 10 % off either way."""
        import pandas as pd

        return pd.DataFrame([self._range(effect.value) for effect in self.effects if effect.matters])

    def _range(self, value: HardwareValue) -> dict[str, Any]:
        low, high = value.interval or (value.value * (1 - OTHERWISE), value.value * (1 + OTHERWISE))
        return {
            "name": value.key,
            "unit": value.unit,
            "low": low,
            "high": high,
            "known": value.interval is not None,
            "time_low_s": times_with(self.result, value, low)["iteration"],
            "time_high_s": times_with(self.result, value, high)["iteration"],
        }

    @property
    def values(self) -> pd.DataFrame:
        """One row per value: number, unit, interval and elasticities."""
        import pandas as pd

        return pd.DataFrame(self._rows()).set_index("name")

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": effect.value.key,
                "value": effect.value.value,
                "unit": effect.value.unit,
                "low": effect.value.low,
                "high": effect.value.high,
                **{name: effect.elasticity[name] for name in self.columns},
            }
            for effect in self.effects
        ]

    def plot(self, **options: Any) -> Picture:
        """A tornado chart of the ranges; options as of `offsim.views.tornado.plot_tornado`."""
        from offsim.views.tornado import plot_tornado

        interval = self.result.interval
        half_s = interval.half_s() if interval else None
        return plot_tornado(
            self.ranges, self.result.iteration_s, **{"half_s": half_s, "title": self.result.name, **options}
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "name": self.result.name,
            "scenario": self.result.scenario.model_dump(mode="json"),
            **self.result.figures(),
            "values": self._rows(),
            **interval_dict(self.result),
        }

    def __repr__(self) -> str:
        lines = [f"{self.result.name}: percent of the iteration's time per percent of a value"]
        lines += [f"{e.value.key} {e.elasticity['iteration']:+.3f}" for e in self.effects if e.matters]
        return "\n  ".join(lines)


def sensitivity(scenario: Source, overrides: Sequence[str] = (), *, all_ranks: bool = False) -> Sensitivity:
    """Simulate an iteration, and again with each value of its hardware a little lower and higher.

    Arguments as of `offsim.simulate`. Raises InputError for what is wrong with the input and DoesNotFit where memory
    runs out.
    """
    return sensitivity_of(simulate(scenario, overrides, all_ranks=all_ranks))


def sensitivity_of(result: Result) -> Sensitivity:
    """Find what a result depends on. Raises DoesNotFit."""
    base = times_of(result)
    return Sensitivity(result, [_effect(result, base, value) for value in hardware_values(result.run.profile)])


def _effect(result: Result, base: Times, value: HardwareValue) -> Effect:
    low, high = (times_with(result, value, value.value * math.exp(step)) for step in (-STEP, STEP))
    elasticity = {phase: change / 2 for phase, change in _slopes(low, high).items()}
    return Effect(value, elasticity, _slopes(low, base)["iteration"], _slopes(base, high)["iteration"])


def _slopes(before: Mapping[str, float], after: Mapping[str, float]) -> Times:
    """The change of ln(time) over one STEP, by phase; none of a phase that takes no time."""
    return {p: math.log(after[p] / before[p]) / STEP if before[p] > 0 and after[p] > 0 else 0.0 for p in before}
