"""How an iteration's time depends on each value of its hardware, and how sure it is as far as these are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from offsim.api import simulate
from offsim.results.result import PHASES, Result
from offsim.simulation import Source
from offsim.study.sensitivities.hardware_values import HardwareValue, Times, hardware_values, times_of, times_with
from offsim.study.sensitivities.interval import Interval, interval_of, swings_of
from offsim.study.sensitivities.slopes import Slope, slope_of

if TYPE_CHECKING:
    import pandas as pd

    from offsim.views.figure import Picture

COLUMNS = ("iteration", *PHASES)
NOTHING = 1e-6
"""An elasticity up to this is rounding."""
OTHERWISE = 0.1
"""How far a picture moves values without an interval, as a share."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A value of the hardware and how the times follow it."""

    value: HardwareValue
    slope: Slope

    @property
    def elasticity(self) -> Times:
        """Phase, and "iteration" -> percent of time per percent of the value, to first order."""
        return self.slope.by_phase

    @property
    def matters(self) -> bool:
        """Whether any of the times follows it."""
        return any(abs(elasticity) > NOTHING for elasticity in self.elasticity.values()) or self.slope.jump is not None


class Sensitivity:
    """What a simulated iteration depends on. `effects` are sorted by the iteration's elasticity, the largest first."""

    def __init__(self, result: Result, effects: Sequence[Effect]) -> None:
        self.result = result
        self.effects = sorted(effects, key=lambda effect: -abs(effect.elasticity["iteration"]))

    @cached_property
    def interval(self) -> Interval | None:
        """Where the times lie as far as the hardware's values are known; None where no value has an interval."""
        return interval_of(self.result)

    @cached_property
    def ranges(self) -> pd.DataFrame:
        """The iteration's time with each value that matters at the ends of its interval, else 10 % off either way."""
        import pandas as pd

        swings = {swing.value.key: swing for swing in (self.interval.swings if self.interval else ())}
        others = [e.value for e in self.effects if e.matters and e.value.key not in swings]
        swings |= {swing.value.key: swing for swing in swings_of(self.result, others, OTHERWISE)}
        rows = [
            {
                "name": key,
                "unit": swing.value.unit,
                "low": swing.low,
                "high": swing.high,
                "known": swing.value.interval is not None,
                "time_low_s": swing.times_low["iteration"],
                "time_high_s": swing.times_high["iteration"],
            }
            for key, swing in swings.items()
        ]
        return pd.DataFrame(rows)

    @property
    def values(self) -> pd.DataFrame:
        """One row per value: number, unit, interval, elasticities, and what its interval makes of the iteration."""
        import pandas as pd

        return pd.DataFrame(self._rows()).set_index("name")

    def _rows(self) -> list[dict[str, Any]]:
        alone = self.interval.contributions_s() if self.interval else {}
        together = self.interval.together_s() if self.interval else {}
        return [
            {
                "name": effect.value.key,
                "value": effect.value.value,
                "unit": effect.value.unit,
                "low": effect.value.low,
                "high": effect.value.high,
                **{name: effect.elasticity[name] for name in COLUMNS},
                "contribution_s": alone.get(effect.value.key),
                "together_s": together.get(effect.value.key),
            }
            for effect in self.effects
        ]

    def plot(self, **options: Any) -> Picture:
        """A tornado chart of the ranges; options as of `offsim.views.tornado.plot_tornado`."""
        from offsim.views.tornado import plot_tornado

        half_s = self.interval.half_s() if self.interval else None
        return plot_tornado(
            self.ranges, self.result.iteration_s, **{"half_s": half_s, "title": self.result.name, **options}
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        jumps = {effect.value.key: effect.slope.jump for effect in self.effects if effect.slope.jump}
        return {
            "name": self.result.name,
            "scenario": self.result.scenario.model_dump(mode="json"),
            **self.result.figures(),
            "values": self._rows(),
            "jumps": [
                {"name": key, "factor": jump.at, "ln_time": jump.change["iteration"]} for key, jump in jumps.items()
            ],
            "interval": self.interval.to_dict() if self.interval else None,
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

    def effect(value: HardwareValue) -> Effect:
        return Effect(value, slope_of(base, lambda factor: times_with(result, value, value.value * factor)))

    return Sensitivity(result, [effect(value) for value in hardware_values(result.run.profile)])
