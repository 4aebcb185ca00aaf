"""Least-squares fit of a recipe's constants to measured phases, and its error on models left out.

A constant's start is its published or physical value, and `spread` is how far (natural logarithm) it may plausibly lie
from it: the fit pays one standard error of a measured phase for going that far. Runs of one or two models cannot pin
every constant; those that they cannot stay where the hardware puts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import least_squares

from offsim.calibration.robust import Interval
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.platform.held_out import Groups, Score
from offsim.platform.measured import Configuration
from offsim.results.dimensions import dimensions
from offsim.results.machines import Machines
from offsim.results.simulate import result_of
from offsim.scenario import scenario_profile
from offsim.validation.names import run_names
from offsim.validation.run_table import TIMES, MeasuredRun, in_columns

NOISE = 0.03
"""Relative error from which a phase weighs less than quadratically: repetitions differ by about that much."""
DIFFERENCE = 0.02
"""Step of finite differences, in spreads of a constant: small beside them, large beside a simulation's rounding."""
SEARCHES = 2
CONVERGED = 1e-3
"""Relative decrease of a fit's cost from which it is done: constants then move by far less than their intervals."""
STANDARD_ERRORS = 1.96
"""Of a normal distribution, to either side of its mean, for 95 %."""

Values = Mapping[str, float]
"""Constant name -> value."""

Profiles = Mapping[str, HardwareProfile]
"""What runs name as their hardware -> the profile that a fit starts from."""

Known = dict[tuple[int, tuple[float, ...]], tuple[float, ...]]
"""(Line of a run, the constants of its hardware) -> predicted seconds: what further fits need not simulate again."""

Residuals = Mapping[str, Mapping[str, np.ndarray]]
"""Hardware -> phase ("sum" is of all three) -> log(measured / predicted) of each configuration."""


@dataclass(frozen=True)
class Constant:
    """A fitted value, the profile fields that it sets: (profile, dotted field, factor), and what it cannot exceed."""

    name: str
    start: float
    spread: float
    targets: tuple[tuple[str, str, float], ...]
    most: float = math.inf


@dataclass(frozen=True)
class Recipe:
    """Constants of profiles that are fitted together, since their runs share hardware."""

    name: str
    constants: tuple[Constant, ...]


@dataclass(frozen=True)
class Point:
    """Runs of one configuration: seconds of each phase (geometric means), and the weight of its errors."""

    run: MeasuredRun
    seconds: tuple[float, ...]
    weight: float

    @cached_property
    def machines(self) -> Machines:
        """The run, to be predicted for the many machines that a fit tries."""
        return Machines(self.run.scenario, many=True)


def runs_on(runs: Iterable[MeasuredRun], profiles: Collection[str]) -> list[MeasuredRun]:
    """The runs on these profiles, which they then name as their hardware whether they had a name or a path."""
    named = ((run, scenario_profile(run.scenario).name) for run in runs)
    return [
        replace(run, scenario=run.scenario.model_copy(update={"hardware": name}))
        for run, name in named
        if name in profiles
    ]


def points(runs: Iterable[MeasuredRun]) -> list[Point]:
    """Merge the repetitions of a configuration, and let each profile weigh the same; runs need times of all phases."""
    groups: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        if run.has_all_phases:
            groups.setdefault(run.scenario.model_dump_json(exclude={"name"}), []).append(run)
    hardware = [members[0].scenario.hardware for members in groups.values()]
    return [
        Point(
            members[0],
            tuple(
                float(np.exp(np.mean([np.log(member.measured[column] / 1e3) for member in members])))
                for column in TIMES
            ),
            (len(hardware) / len(set(hardware)) / hardware.count(members[0].scenario.hardware)) ** 0.5,
        )
        for members in groups.values()
    ]


def apply(recipe: Recipe, values: Values, profiles: Profiles) -> dict[str, HardwareProfile]:
    """The profiles with the recipe's constants at `values`."""
    changes: dict[str, dict[str, dict[str, float]]] = {profile: {} for profile in profiles}
    for constant in recipe.constants:
        for profile, field, factor in constant.targets:
            section, name = field.split(".")
            changes[profile].setdefault(section, {})[name] = values[constant.name] * factor
    return {name: profiles[name].with_values(sections) for name, sections in changes.items()}


def predict(point: Point, profile: HardwareProfile) -> tuple[float, ...]:
    """Seconds of each phase; raises InputError for a run that does not fit in memory."""
    run = point.run
    try:
        result = result_of(run.scenario, point.machines.on(profile), profile)
    except InputError as error:
        raise in_columns(error) from None
    if result.verdict is not None:
        raise InputError(f"was measured, but {result.verdict}", f"line {run.line}")
    return tuple(result.durations[phase] for phase in TIMES.values())


def fit(
    recipe: Recipe,
    data: Sequence[Point],
    profiles: Profiles,
    show: Callable[[str], None] = lambda _: None,
    near: Values | None = None,
    known: Known | None = None,
) -> Values:
    """Constants that bring predictions close to `data` without leaving the plausible (see `recipe`).

    The search begins at the values `near`, by default at the starts, and once more where it ends.
    """
    deviations = _deviations(recipe, data, profiles, known)

    def weighed(z: np.ndarray) -> np.ndarray:
        return np.concatenate([deviations(z), NOISE * z])

    highest = [np.log(constant.most / constant.start) / constant.spread for constant in recipe.constants]
    z = np.zeros(len(recipe.constants)) if near is None else _spreads(recipe, near)
    evaluations = 0
    for _ in range(SEARCHES if near is None else 1):
        solution = least_squares(
            weighed,
            z,
            jac=_updated_slopes(weighed),
            loss="soft_l1",
            f_scale=NOISE,
            x_scale=1.0,
            max_nfev=60,
            ftol=CONVERGED,
            bounds=(-np.inf, highest),
        )
        z, evaluations = solution.x, evaluations + solution.nfev
    show(f"{recipe.name}: cost {solution.cost:.4g} after {evaluations} evaluations")
    return _values(recipe, z)


def _slopes(function: Callable[[np.ndarray], np.ndarray], z: np.ndarray) -> np.ndarray:
    """The Jacobian by finite differences."""
    at = function(z)
    return np.stack([(function(z - step) - at) / -DIFFERENCE for step in DIFFERENCE * np.eye(len(z))], axis=1)


def _updated_slopes(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The Jacobian by finite differences at first, then by Broyden's rank-one updates, which simulate nothing."""
    last: list[np.ndarray] = []

    def slopes(z: np.ndarray) -> np.ndarray:
        values = function(z)
        if not last:
            found = _slopes(function, z)
        else:
            before, at, found = last
            step = z - before
            found = found + np.outer(values - at - found @ step, step) / max(step @ step, 1e-300)
        last[:] = z.copy(), values, found
        return found.copy()

    return slopes


def sensitivities(recipe: Recipe, values: Values, data: Sequence[Point], profiles: Profiles) -> np.ndarray:
    """How much each phase of `data` (rows) changes, relatively, as each constant (columns) goes by its spread."""
    return _slopes(_deviations(recipe, data, profiles), _spreads(recipe, values))


def intervals(
    recipe: Recipe, values: Values, data: Sequence[Point], profiles: Profiles, known: Known | None = None
) -> dict[str, Interval]:
    """The 95 % interval of each fitted constant on its own, whatever the others are.

    It follows from the curvature of the fit, in which starts and data count; what lies far from the prediction counts
    less, as in the fit itself.
    """
    z, deviations = _spreads(recipe, values), _deviations(recipe, data, profiles, known)
    off = np.concatenate([deviations(z) / NOISE, z])
    slopes = np.concatenate([_slopes(deviations, z) / NOISE, np.eye(len(z))])
    slopes /= (1 + off[:, np.newaxis] ** 2) ** 0.25
    errors = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    found = {}
    for constant, error in zip(recipe.constants, errors, strict=True):
        value, factor = values[constant.name], float(np.exp(STANDARD_ERRORS * error * constant.spread))
        found[constant.name] = Interval(value, value / factor, max(value, min(value * factor, constant.most)))
    return found


def _deviations(
    recipe: Recipe, data: Sequence[Point], profiles: Profiles, known: Known | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Weighed logarithms of predicted over measured seconds, by how many spreads constants are from their starts."""
    seconds: Known = {} if known is None else known

    def deviations(z: np.ndarray) -> np.ndarray:
        values = _values(recipe, z)
        changed = apply(recipe, values, profiles)
        keys = {
            name: tuple(values[c.name] for c in recipe.constants if any(profile == name for profile, _, _ in c.targets))
            for name in changed
        }
        rows = []
        for point in data:
            hardware = point.run.scenario.hardware
            key = point.run.line, keys[hardware]
            if key not in seconds:
                seconds[key] = predict(point, changed[hardware])
            rows.append(point.weight * np.log(np.divide(seconds[key], point.seconds)))
        return np.concatenate(rows)

    return deviations


def _spreads(recipe: Recipe, values: Values) -> np.ndarray:
    return np.array([np.log(values[constant.name] / constant.start) / constant.spread for constant in recipe.constants])


def _values(recipe: Recipe, z: np.ndarray) -> dict[str, float]:
    start = np.log([constant.start for constant in recipe.constants])
    spread = np.array([constant.spread for constant in recipe.constants])
    names = [constant.name for constant in recipe.constants]
    return dict(zip(names, (float(v) for v in np.exp(start + z * spread)), strict=True))


def residuals(data: Sequence[Point], profiles: Profiles) -> dict[str, dict[str, np.ndarray]]:
    """The residuals of predictions with these profiles."""
    collected: dict[str, list[list[float]]] = {}
    for point in data:
        hardware = point.run.scenario.hardware
        predicted = predict(point, profiles[hardware])
        pairs = [*zip(point.seconds, predicted, strict=True), (sum(point.seconds), sum(predicted))]
        collected.setdefault(hardware, []).append([math.log(measured / seconds) for measured, seconds in pairs])
    phases = (*TIMES.values(), "sum")
    return {hw: dict(zip(phases, np.transpose(rows), strict=True)) for hw, rows in collected.items()}


def relative_errors(residuals: np.ndarray) -> np.ndarray:
    """How far predictions are from what was measured, as shares of that, without sign."""
    return np.asarray(np.abs(np.expm1(-residuals)))


def median_errors(residuals: Mapping[str, np.ndarray]) -> str:
    """The median error of each phase in words, of one hardware's residuals."""
    medians = {phase: 100 * np.median(relative_errors(residuals[phase])) for phase in TIMES.values()}
    return "median " + ", ".join(f"{phase} {median:.1f} %" for phase, median in medians.items())


CONFIGURATIONS = "random configurations"
"""What a calibration without a recipe leaves out of the fit."""


def scores(residuals: Mapping[str, np.ndarray]) -> dict[str, Score]:
    """Phase -> errors of one group's runs."""
    found = {}
    for phase, values in residuals.items():
        percentiles = np.percentile(100 * relative_errors(values), [50, 90, 100]).tolist()
        median, p90, worst = (round(percentile, 2) for percentile in percentiles)
        rounded = tuple(values.round(5).tolist())
        found[phase] = Score(n=len(values), median=median, p90=p90, worst=worst, residuals=rounded)
    return found


def scores_by_hardware(left_out: Mapping[str, Residuals], without_residuals: Container[str] = ()) -> dict[str, Groups]:
    """Hardware -> group -> phase -> errors, of the residuals of each group by hardware.

    Intervals are made of residuals. Groups without them, such as a layout that is measured as well, say how far
    predictions of something unlike all other runs would be off.
    """
    found: dict[str, Groups] = {}
    for group, residuals in left_out.items():
        for hardware, phases in residuals.items():
            scored = scores(phases)
            if group in without_residuals:
                scored = {phase: score.model_copy(update={"residuals": ()}) for phase, score in scored.items()}
            found.setdefault(hardware, {})[group] = scored
    return found


def configurations(data: Sequence[Point], profile: HardwareProfile, left_out: Sequence[str]) -> list[Configuration]:
    """What was measured on a profile's hardware; `left_out` is the group of each point, "" if it was only fitted to."""
    names = run_names([point.run for point in data])
    return [
        Configuration(
            name=names[point.run.line].removeprefix(f"{point.run.cell('hardware')} "),
            left_out=group,
            dimensions=dimensions(point.run.scenario, profile),
        )
        for point, group in zip(data, left_out, strict=True)
    ]
