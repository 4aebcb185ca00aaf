"""Carrying out a recipe: the fit, its intervals, and its errors on runs that are left out of it in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import apply, correlations, covariance, errors, fit, intervals
from offsim.calibration.runs.plausible import check
from offsim.calibration.runs.recipe_file import RecipeFile
from offsim.platform.correlations import Triangle

Errors = Mapping[str, Mapping[str, np.ndarray]]
"""Hardware -> phase ("sum" is of all three) -> absolute relative error of each configuration."""


@dataclass(frozen=True)
class Refit:
    """What a recipe gives: constants, correlations by profile, errors on runs fitted to and on each left-out group."""

    file: RecipeFile
    found: Mapping[str, Interval]
    correlations: Mapping[str, Triangle]
    fitted: Errors
    left_out: Mapping[str, Errors]


def refit(file: RecipeFile, show: Callable[[str], None] = lambda _: None) -> Refit:
    """Fit a recipe's constants to all of its runs, then without each group of them, which is predicted.

    `show` is told of each fit that is done. Raises InputError for a constant that contradicts physics.
    """
    recipe, profiles = file.recipe, file.profiles
    values = fit(recipe, file.data, profiles, show)
    for constant in recipe.constants:
        for profile, field, factor in constant.targets:
            check(profiles[profile], field, factor * values[constant.name], f"recipe {recipe.name}")
    left_out = {}
    for group in sorted({point.run.cell(file.leave_out) for point in file.data}):
        others = [point for point in file.data if point.run.cell(file.leave_out) != group]
        judged = [point for point in file.data if point.run.cell(file.leave_out) == group]
        show(f"without {group}:")
        without = fit(recipe, others, profiles, show)
        left_out[group] = errors(judged, apply(recipe, without, profiles))
    covariances = covariance(recipe, values, file.data, profiles)
    found = intervals(recipe, values, covariances)
    together = {name: correlations(recipe, covariances, name) for name in profiles}
    return Refit(file, found, together, errors(file.data, apply(recipe, values, profiles)), left_out)
