"""Carrying out a recipe: the fit, its errors on runs left out in turn, and the profiles with the fitted values."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from offsim.calibration.profile_text import ProfileValue, parsed, put, quoted, text_of
from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import (
    Known,
    Residuals,
    apply,
    configurations,
    fit,
    intervals,
    median_errors,
    residuals,
    scores_by_hardware,
)
from offsim.calibration.runs.plausible import check
from offsim.calibration.runs.recipe_file import RecipeFile
from offsim.inputs.errors import InputError
from offsim.inputs.files import write_together
from offsim.inputs.packaged import is_path
from offsim.platform.held_out import FILE_NAME, held_out_text, read_held_out
from offsim.platform.measured import FILE_NAME as MEASURED
from offsim.platform.measured import Configuration, measured_text, read_measured
from offsim.platform.profiles import profile_file


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
    known: Known = {}
    values = fit(recipe, file.data, profiles, show, known=known)
    for constant in recipe.constants:
        for profile, field, factor in constant.targets:
            check(profiles[profile], field, factor * values[constant.name], f"recipe {recipe.name}")
    left_out = {}
    for group, judged in {**file.groups, **file.further}.items():
        others = [point for point in file.data if point not in judged]
        show(f"without {group}:")
        without = fit(recipe, others, profiles, show, values, known)
        left_out[group] = residuals(judged, apply(recipe, without, profiles))
    constants = intervals(recipe, values, file.data, profiles, known)
    return Refit(file, constants, residuals(file.data, apply(recipe, values, profiles)), left_out)


def outputs(files: Sequence[RecipeFile], folder: Path) -> list[Path]:
    """The files that refits of these recipes will write in a folder; raise InputError where they could not be."""
    read_held_out(folder / FILE_NAME)
    read_measured(folder / MEASURED)
    paths: list[Path] = []
    for file in files:
        for name, path in file.files.items():
            if folder / path.name in paths:
                raise InputError(
                    f"found {name} again, expected each profile in one recipe", f"recipe {file.recipe.name}"
                )
            paths.append(folder / path.name)
    return [*paths, folder / FILE_NAME, folder / MEASURED]


def measured_by(file: RecipeFile) -> dict[str, list[Configuration]]:
    """The configurations that a recipe's profiles are fitted to, each with the group that it is left out with."""
    group_of = {point.run.line: group for group, points in file.groups.items() for point in points}
    found = {}
    for name, profile in file.profiles.items():
        data = [point for point in file.data if point.run.scenario.hardware == name]
        found[name] = configurations(data, profile, [group_of.get(point.run.line, "") for point in data])
    return found


def write_refits(refits: Sequence[Refit], folder: Path) -> None:
    """Write the profiles as fitted into a folder, and what was measured and left out into its two JSON files.

    The profiles' own folder may be that folder. What these files have of other profiles is kept.
    """
    measured = read_measured(folder / MEASURED)
    held_out = read_held_out(folder / FILE_NAME)
    texts: dict[Path, bytes] = {}
    for refit in refits:
        for name, path in refit.file.files.items():
            error = median_errors(refit.fitted[name])
            texts[folder / path.name] = profile_text(refit.file, name, refit.constants, error, folder).encode()
        held_out |= scores_by_hardware(refit.left_out, without_residuals=refit.file.further)
        measured |= measured_by(refit.file)
    known = {folder / FILE_NAME: held_out_text(held_out), folder / MEASURED: measured_text(measured)}
    write_together({**texts, **known})


def profile_text(file: RecipeFile, name: str, constants: Mapping[str, Interval], error: str, folder: Path) -> str:
    """The text of a profile of the recipe with the fitted constants, to be written into `folder`.

    A profile that inherits a constant from another of the recipe is left to inherit it.
    """
    path = file.files[name]
    document = parsed(path)
    extends = document.get("extends")
    base = profile_file(extends, path.parent).resolve() if extends else None
    bases = [other for other, place in file.files.items() if place.resolve() == base]
    for constant in file.recipe.constants:
        for target, field, factor in constant.targets:
            section, key = field.split(".")
            inherited = any((other, field, factor) in constant.targets for other in bases)
            if target == name and (key in document.get(section, {}) or not inherited):
                put(document, field, ProfileValue(*constants[constant.name].times(factor), "fitted", error))
    if extends and folder.resolve() != path.parent.resolve() and (bases or is_path(extends)):
        place = file.files[bases[0]].name if bases else Path(os.path.relpath(base or "", folder.resolve())).as_posix()
        document["extends"] = quoted(place)
    return text_of(document)
