"""Recipes from the command line: what they are applied to, and what they give, as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from offsim.calibration.runs.fit import Residuals
from offsim.calibration.runs.recipe_file import read_recipe
from offsim.calibration.runs.refit import Refit, refit
from offsim.calibration.runs.write import outputs, write_refits
from offsim.cli.calibration import medians
from offsim.cli.outputs import check_outputs, writing
from offsim.cli.terminal import PLAIN, Style, note, show, style_of
from offsim.inputs.errors import InputError


def is_recipe(file: str) -> bool:
    """Tell a recipe from measurements."""
    return file.endswith((".yaml", ".yml"))


def refit_profiles(files: Sequence[str], out: str, others: Mapping[str, object]) -> None:
    """Carry out recipes and write their profiles into the folder `out`; `others` are options that do not go with it."""
    for file in files:
        if not is_recipe(file):
            raise InputError("found measurements together with a recipe, expected recipes alone", file)
    for option, value in others.items():
        if value is not None:
            raise InputError(f"found {value}, expected no such option with a recipe, which says it itself", option)
    folder = Path(out)
    recipes = [read_recipe(file) for file in files]
    if not os.path.isdir(folder):
        if os.path.exists(folder) or is_recipe(out):
            raise InputError("found a file's name, expected a folder for the profiles of recipes", f"--out '{out}'")
        check_outputs({"--out": str(folder)})
    for path in outputs(recipes, folder):
        if folder.is_dir():
            check_outputs({"--out": str(path)}, inputs=files)
    refits = [refit(recipe, note) for recipe in recipes]
    with writing("--out", out):
        folder.mkdir(exist_ok=True)
        write_refits(refits, folder)
    show("\n\n".join(refit_report(found, style_of(sys.stdout)) for found in refits))


def refit_report(found: Refit, style: Style = PLAIN) -> str:
    """The constants that were found, and how far predictions are off."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for constant in found.file.recipe.constants:
        interval = found.constants[constant.name]
        of = ", ".join(dict.fromkeys(profile for profile, _, _ in constant.targets))
        rows = groups.setdefault(of, [(of, "", "", "", "")])
        for field, factor in dict.fromkeys((field, factor) for _, field, factor in constant.targets):
            numbers = (constant.start, interval.value, interval.low, interval.high)
            rows.append((f"  {field}", *(f"{factor * number:.3g}" for number in numbers)))
    title = style.heading(f"{found.file.recipe.name}: constants of {len(found.file.data)} configurations")
    table = style.table([*chain(*groups.values())], ("value", "start", "found", "low", "high"), "lrrrr")
    return f"{title}\n{table}\n\n{_errors(found, style)}"


def _errors(found: Refit, style: Style) -> str:
    judged: list[tuple[str, Residuals]] = [("fitted", found.fitted)]
    judged += [(f"{group} left out", residuals) for group, residuals in found.left_out.items()]
    rows = [
        (hardware, f"{len(residuals[hardware]['sum'])} {kind}", *medians(residuals[hardware]))
        for hardware in found.file.profiles
        for kind, residuals in judged
        if hardware in residuals
    ]
    title = style.heading("median errors in percent")
    headers = ("profile", "configurations", "forward", "backward", "step", "sum")
    return f"{title}\n{style.table(rows, headers, 'llrrrr')}"
