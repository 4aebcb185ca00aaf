"""Whether a configuration lies inside what was measured on its hardware, and how far held-out runs near it were off.

A number is inside where it is at most 10 % beyond the least and the most that were measured, a word or a flag where it
was measured. Options of a scheduler are compared with runs under that scheduler. Distances are Euclidean, of logarithms
of numbers; a word that differs, or a number where the other is 0, counts as much as a factor of 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsim.inputs.errors import InputError
from offsim.platform.held_out import FILE_NAME as HELD_OUT
from offsim.platform.held_out import read_held_out
from offsim.platform.measured import FILE_NAME, Configuration, Dimensions, read_measured
from offsim.platform.profiles import load_profile, profile_file
from offsim.results.dimensions import OPTIMIZER_IN, dimensions
from offsim.results.units import engineering, plural

if TYPE_CHECKING:
    from offsim.results.result import Result

Value = bool | int | float | str
BEYOND = 1.1
"""As many times what was measured is still inside."""
DIFFERENT = math.log(10)
NEAREST = 3


@dataclass(frozen=True)
class Outside:
    """A dimension outside what was measured; `factor` says how many times beyond the nearest number measured it is."""

    dimension: str
    value: Value
    measured: tuple[Value, ...]
    """The least and the most of numbers, every value of words."""
    factor: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether it can be said to be above or below what was measured."""
        return _is_number(self.value) and all(map(_is_number, self.measured))

    @property
    def asked(self) -> str:
        """The dimension and its value."""
        return f"{named(self.dimension)} {shown(self.value)}"

    def __str__(self) -> str:
        if not self.is_number:
            return f"{self.asked} was never measured on this hardware"
        above = float(self.value) > float(self.measured[-1])
        limit = f"the {'most' if above else 'least'} measured, {shown(self.measured[-1 if above else 0])}"
        if self.factor is None:
            return f"{self.asked} is {'above' if above else 'below'} {limit}"
        return f"{self.asked} is {'' if above else '1/'}{self.factor:.3g}{' times' if above else ' of'} {limit}"


@dataclass(frozen=True)
class HeldOutRun:
    """A run that was predicted by a fit that did not use its group, and in what it differs from a configuration."""

    name: str
    left_out: str
    distance: float
    differs: Mapping[str, Value | None]
    """Dimension -> the run's value, None where it has none."""
    errors: Mapping[str, float]
    """Phase, and "sum" of all -> predicted / measured - 1."""


@dataclass(frozen=True)
class MeasuredRange:
    """What was measured on the hardware of a configuration, beside it."""

    hardware: str
    configurations: int
    """Number of those measured."""
    outside: tuple[Outside, ...] = ()
    """Dimensions in which it is outside, the farthest first."""
    nearest: tuple[HeldOutRun, ...] = ()
    """The nearest held-out runs, the nearest first."""
    reason: str = ""
    """Why nothing is known, "" where something is."""

    @property
    def inside(self) -> bool:
        """Whether runs were measured on the hardware, and the configuration lies among them in every dimension."""
        return self.configurations > 0 and not self.outside

    def __str__(self) -> str:
        if not self.configurations:
            return self.reason
        known = f"{plural(self.configurations, 'configuration')} measured on {self.hardware}"
        return f"inside the range of the {known}" if self.inside else f"outside the range of the {known}: {self.beyond}"

    @property
    def beyond(self) -> str:
        """What is outside and by how much, in words; "" where nothing is."""
        new = [one.asked for one in self.outside if not one.is_number]
        said = [f"{', '.join(new)} {'were' if len(new) > 1 else 'was'} never measured on this hardware"] if new else []
        return "; ".join([*said, *(str(one) for one in self.outside if one.is_number)])

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence that names the dimensions outside; none where it is inside."""
        names = ", ".join(named(one.dimension) for one in self.outside)
        return (f"Outside what was measured on {self.hardware} in: {names}.",) if names else ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {"inside": self.inside, **asdict(self), "text": str(self)}


def measured_range(result: Result) -> MeasuredRange:
    """Compare the configuration of a result with those measured on its hardware."""
    profile = result.run.profile
    try:
        path = known_profile(result)
    except InputError as error:
        return MeasuredRange(profile.name, 0, reason=error.problem)
    known = read_measured(path.with_name(FILE_NAME)).get(path.stem, [])
    if not known:
        return MeasuredRange(profile.name, 0, reason=f"no configuration was measured on {profile.name}")
    asked = dimensions(result.scenario, profile)
    runs = sorted(_held_out(path, known, asked), key=lambda run: run.distance)
    return MeasuredRange(profile.name, len(known), outside_of(asked, known), tuple(runs[:NEAREST]))


def known_profile(result: Result) -> Path:
    """The file of the result's hardware; InputError with the reason where that is made up."""
    scenario, profile = result.scenario, result.run.profile
    if scenario.hardware_changes:
        raise InputError("no runs were measured on this hardware, which hardware_changes make")
    try:
        path = profile_file(scenario.hardware, scenario.folder)
        known = load_profile(path) == profile
    except InputError:
        known = False
    if not known:
        raise InputError(f"{profile.name} was given in Python, not by its file")
    return path


def outside_of(asked: Dimensions, known: Sequence[Configuration]) -> tuple[Outside, ...]:
    """The dimensions in which a configuration is outside what is known, the farthest first."""
    alike = [one.dimensions for one in known if one.dimensions.get("scheduler") == asked["scheduler"]]
    found = []
    for name, value in asked.items():
        if name.startswith("scheduler.") and not alike:
            continue  # the scheduler itself was never measured
        values = [_of(one, name) for one in (alike if name.startswith("scheduler.") else (c.dimensions for c in known))]
        outside = _outside(name, value, [v for v in values if v is not None])
        found += [outside] if outside else []
    return tuple(sorted(found, key=lambda one: -math.inf if one.factor is None else -one.factor))


def _outside(name: str, value: Value, known: Sequence[Value]) -> Outside | None:
    if not known:
        return None  # not recorded of these runs
    if not _is_number(value) or not all(map(_is_number, known)):
        return None if value in known else Outside(name, value, tuple(sorted({*known}, key=str)))
    least, most = min(known, key=float), max(known, key=float)
    number = float(value)
    if float(least) / BEYOND <= number <= float(most) * BEYOND:
        return None
    limit = float(most if number > float(most) else least)
    return Outside(name, value, (least, most), max(number / limit, limit / number) if number and limit else None)


def _held_out(path: Path, known: Sequence[Configuration], asked: Dimensions) -> list[HeldOutRun]:
    """The runs held out, each with its errors: residuals of a group are in the order of its runs."""
    groups = read_held_out(path.with_name(HELD_OUT)).get(path.stem, {})
    found = []
    for group, scores in groups.items():
        runs = [one for one in known if one.left_out == group]
        if not any(score.residuals for score in scores.values()):
            continue
        for place, run in enumerate(runs):
            if any(len(score.residuals) != len(runs) for score in scores.values()):
                raise InputError(f"{path.stem}: {group}: found {len(runs)} runs, expected as many as in {HELD_OUT}")
            errors = {phase: math.expm1(-score.residuals[place]) for phase, score in scores.items()}
            distance, differs = _distance(asked, run.dimensions)
            found.append(HeldOutRun(run.name, group, distance, differs, errors))
    return found


def _distance(asked: Dimensions, run: Dimensions) -> tuple[float, dict[str, Value | None]]:
    """How far a run is, and its values where they differ."""
    differs: dict[str, Value | None] = {}
    squares = 0.0
    for name in dict.fromkeys([*asked, *run]):
        if name.startswith("scheduler.") and asked["scheduler"] != run["scheduler"]:
            continue
        one, other = _of(asked, name), _of(run, name)
        if one != other:
            differs[name] = other
            squares += _apart(one, other) ** 2
    return math.sqrt(squares), differs


def _apart(one: Value | None, other: Value | None) -> float:
    if _is_number(one) and _is_number(other) and one and other:
        return abs(math.log(float(one) / float(other)))
    return DIFFERENT


def _of(run: Dimensions, name: str) -> Value | None:
    """A dimension's value; of tiers that hold no optimizer state 0."""
    return run.get(name, 0.0 if name.startswith(OPTIMIZER_IN) else None)


def _is_number(value: Value | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def named(dimension: str) -> str:
    """A dimension's name in words: model.sequence is "sequence"."""
    return dimension.rpartition(".")[2].replace("_", " ")


def shown(value: Value | None) -> str:
    """A dimension's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) and value < 1_000_000 else engineering(float(f"{value:.3g}"))
