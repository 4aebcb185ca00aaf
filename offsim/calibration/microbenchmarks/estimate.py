"""A constant with its interval and source, and rates from timed repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from offsim.calibration.microbenchmarks.rows import IDLE, UNITS, Timed
from offsim.calibration.robust import Interval, fit_seconds, medians
from offsim.platform.hardware import Source

LARGE = {"bytes": 2.0**26, "elements": 5e7, "m x n x k": 1e11}
"""Sizes, in bytes, elements and FLOPs, from which on neither caches nor launches rule the rate.

5e7 elements are 200 MB and more, and half of a usual sub-group; allocators reuse memory below 32 MiB.
"""


WIDEST = 3.0
"""Upper over lower bound of an interval from which on the measurements do not determine a constant."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A constant, by the profile's field or another name, with its interval, repetitions and source."""

    name: str
    interval: Interval
    samples: int
    note: str = ""
    at_least: bool = False
    """Whether the constant is only known to be no smaller."""
    source: Source = "measured"
    file: str = ""

    @property
    def of_profile(self) -> bool:
        """Whether a field of profiles stands for it, whose dotted name it then has."""
        return "." in self.name

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        bound = "a lower bound; " if self.at_least else ""
        return f"{bound}{self.samples} samples of {Path(self.file).resolve().name}; {self.note}".removesuffix("; ")


def determined(estimates: Iterable[Estimate], file: str) -> list[Estimate]:
    """The estimates that a file's measurements leave open by less than a factor `WIDEST`."""
    return [replace(estimate, file=file) for estimate in estimates if estimate.interval.spread < WIDEST]


def of(timed: Sequence[Timed], quantity: str, condition: str = IDLE) -> list[Timed]:
    """The measurements of a quantity under a condition."""
    return [case for case in timed if (case.quantity, case.condition) == (quantity, condition)]


def large(cases: Sequence[Timed]) -> list[Timed]:
    """Those that are `LARGE`."""
    return [case for case in cases if case.amount >= LARGE[UNITS[case.quantity]]]


def samples(*cases: Timed) -> int:
    """Repetitions in all."""
    return sum(len(case.seconds) for case in cases)


def median_rates(cases: Sequence[Timed], factor: float = 1.0) -> list[Interval]:
    """The rate of each measurement of a kind, in `factor` of its amount per second."""
    found = zip(cases, medians([case.seconds for case in cases]), strict=True)
    return [Interval(*(factor * case.amount / t for t in (time.value, time.high, time.low))) for case, time in found]


def scaled(cases: Sequence[Timed], factor: float) -> list[Timed]:
    """The same with amounts in another unit."""
    return [replace(case, amount=factor * case.amount) for case in cases]


def rates(groups: Mapping[str, Sequence[Timed]], latency: str = "") -> Iterator[Estimate]:
    """Rates of groups that have one fixed time: seconds = latency + amount / rate."""
    names = [name for name, cases in groups.items() if cases]
    cases = [case for name in names for case in groups[name]]
    if not cases:
        return
    if len(cases) == 1:
        yield Estimate(names[0], median_rates(cases)[0], samples(*cases))
        return
    group = np.array([index for index, name in enumerate(names) for _ in groups[name]])
    amounts = np.array([case.amount for case in cases])
    seconds = [case.seconds for case in cases]
    start = [max(case.amount / case.median for case in groups[name]) for name in names]
    if len(set(amounts)) == 1:  # a fixed time cannot be told from one amount
        found = fit_seconds(lambda v: amounts / v[group], start, seconds)
    else:
        shortest = min(case.median for case in cases)
        found = fit_seconds(lambda v: v[-1] + amounts / v[group], [*start, shortest], seconds)
        if latency:
            yield Estimate(latency, found[-1], samples(*cases))
    for name, interval in zip(names, found, strict=False):
        yield Estimate(name, interval, samples(*groups[name]))
