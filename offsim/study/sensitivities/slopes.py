"""The slope of times over one value, both in logarithms, where times are smooth in the value only piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from offsim.study.sensitivities.hardware_values import Times

STEP = 0.01
"""Of ln(value), either way: below what most values are known to, and wide enough to even out small bends."""
UNEVEN = 0.02
"""Slopes nearby that differ by more are looked into, and told."""
_HALVINGS = 8
_MAIN = "iteration"


@dataclass(frozen=True, slots=True)
class Jump:
    """Where the iteration's time is not continuous: an order of activities turns over."""

    at: float
    """The value's factor at which it jumps."""
    change: Times
    """Phase -> change of ln(time) as the value rises."""


@dataclass(frozen=True, slots=True)
class Slope:
    """d ln(time) / d ln(value) by phase, without the jump where there is one; the iteration's below and above."""

    by_phase: Times
    below: float = 0.0
    above: float = 0.0
    jump: Jump | None = None


def slope_of(base: Times, times: Callable[[float], Times]) -> Slope:
    """Differentiate `times`, a function of the value's factor that is `base` at 1, by central differences over STEP.

    Where the iteration's slope below is not that above, the halves of both are looked at. A jump is told from a bend
    by halving the stretch that stands out: what is left of it keeps its height.
    """
    known = {x: times(math.exp(x)) if x else base for x in (-STEP, 0.0, STEP)}
    change = _change(known[-STEP], known[STEP])
    slopes = _slopes(known)
    jump = None
    if max(slopes) - min(slopes) > UNEVEN / 2:
        known |= {x: times(math.exp(x)) for x in (-STEP / 2, STEP / 2)}
        known = dict(sorted(known.items()))
        slopes = _slopes(known)
        usual = median(slopes)
        widest = max(range(4), key=lambda i: abs(slopes[i] - usual))
        if abs(slopes[widest] - usual) > UNEVEN:
            low, high = list(known)[widest : widest + 2]
            jump = _jump(known[low], known[high], low, usual, times)
    jumped = jump.change if jump else dict.fromkeys(change, 0.0)
    by_phase = {phase: (change[phase] - jumped[phase]) / (2 * STEP) for phase in change}
    below, above = slopes[len(slopes) // 2 - 1 : len(slopes) // 2 + 1]
    return Slope(by_phase, below, above, jump)


def _slopes(known: dict[float, Times]) -> list[float]:
    """The iteration's slope between neighbours."""
    return [_change(known[a], known[b])[_MAIN] / (b - a) for a, b in pairwise(known)]


def _jump(low: Times, high: Times, start: float, usual: float, times: Callable[[float], Times]) -> Jump | None:
    """The jump between `start` and a quarter further, beside the usual slope; None where it is a bend."""
    width = STEP / 2
    height = abs(_change(low, high)[_MAIN] - usual * width)
    for _ in range(_HALVINGS):
        width /= 2
        middle = times(math.exp(start + width))
        if abs(_change(low, middle)[_MAIN] - usual * width) >= abs(_change(middle, high)[_MAIN] - usual * width):
            high = middle
        else:
            low, start = middle, start + width
    left = _change(low, high)
    return Jump(math.exp(start + width / 2), left) if abs(left[_MAIN] - usual * width) > height / 2 else None


def _change(before: Times, after: Times) -> Times:
    """Of ln(time), by phase; of a phase that takes no time, none."""
    return {p: math.log(after[p] / before[p]) if before[p] > 0 and after[p] > 0 else 0.0 for p in before}
