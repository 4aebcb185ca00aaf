"""Carrying out a recipe: the fit, its intervals, and its errors on runs that are left out of it in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import Residuals, apply, fit, intervals, residuals
from offsim.calibration.runs.plausible import check
from offsim.calibration.runs.recipe_file import RecipeFile


@dataclass(frozen=True)
class Refit:
    """What a recipe gives: constants, residuals of the runs fitted to, and of each group while it was left out."""

    file: RecipeFile
    constants: Mapping[str, Interval]
    fitted: Residuals
    left_out: Mapping[str, Residuals]


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
        left_out[group] = residuals(judged, apply(recipe, without, profiles))
    constants = intervals(recipe, values, file.data, profiles)
    return Refit(file, constants, residuals(file.data, apply(recipe, values, profiles)), left_out)
