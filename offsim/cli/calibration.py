"""What a calibration found, and recipes carried out, as text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from offsim.calibration.calibrate import Calibration, phase_residuals
from offsim.calibration.runs.fit import Residuals, relative_errors
from offsim.calibration.runs.plausible import value_of
from offsim.calibration.runs.recipe_file import read_recipe
from offsim.calibration.runs.refit import Refit, outputs, refit, write_refits
from offsim.cli.outputs import check_outputs, give, writing
from offsim.cli.terminal import Style, note, wrapped
from offsim.inputs.errors import InputError
from offsim.inputs.units import unit_of


def calibration_report(calibration: Calibration, style: Style) -> str:
    """What was found and from what, what was kept, and how far predictions are off before and after."""
    blocks = [_found(calibration, style)]
    for estimate in calibration.others:
        value, low, high = (f"{number:.3g}" for number in estimate.interval)
        found = f"{value} {unit_of(estimate.name)} ({low} to {high})"
        blocks.append(wrapped(f"{estimate.name}: {found}, {estimate.origin}"))
    if calibration.fitted:
        blocks += _errors(calibration, style)
    if calibration.kept:
        blocks.append(wrapped(f"kept from {calibration.base.name}: {', '.join(calibration.kept)}"))
    return "\n\n".join(blocks)


def _found(calibration: Calibration, style: Style) -> str:
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []  # of the rows; a section's has none
    above = ""
    for name, found in calibration.values:
        section, _, key = name.rpartition(".")
        if section != above:
            rows.append((section, "", "", "", "", ""))
            notes.append("")
            above = section
        numbers = (value_of(calibration.base, name), found.value, found.low, found.high)
        cells = ("" if number is None else f"{number:.3g}" for number in numbers)
        rows.append((f"  {key}" if section else key, *cells, found.source))
        notes.append(wrapped(found.note, "    ", "    "))
    table = style.table(rows, ("value", "base", "found", "low", "high", "source"), "lrrrrl")
    headers, rule, *lines = table.splitlines()
    below = (part for pair in zip(lines, notes, strict=True) for part in pair if part)
    return "\n".join([headers, rule, *below])


def _errors(calibration: Calibration, style: Style) -> list[str]:
    """The table of errors, and a warning where those on held-out runs have grown."""
    judged = {"fitted": calibration.fitted, "held out": calibration.held_out}
    profiles = {"base": calibration.start, "found": calibration.profile}
    off = {
        (kind, which): phase_residuals(judged[kind], profile)
        for kind in judged
        if judged[kind]
        for which, profile in profiles.items()
    }
    rows = [(f"{len(judged[kind])} {kind}", which, *medians(found)) for (kind, which), found in off.items()]
    title = style.heading("median errors in percent")
    headers = ("configurations", "profile", "forward", "backward", "step", "sum")
    blocks = [f"{title}\n{style.table(rows, headers, 'llrrrr')}"]
    sums = [np.median(relative_errors(off["held out", which]["sum"])) for which in profiles if calibration.held_out]
    if sums and sums[1] > sums[0]:
        worse = "the runs held out are predicted worse than by the base: are all files of one machine, and of its kind?"
        blocks.append(style.alarm(wrapped(worse)))
    return blocks


def medians(residuals: Mapping[str, np.ndarray]) -> list[str]:
    """Median errors of each phase in percent, as a table's cells."""
    return [f"{100 * np.median(relative_errors(values)):.1f}" for values in residuals.values()]


def is_recipe(file: str) -> bool:
    """Tell a recipe from measurements."""
    return file.endswith((".yaml", ".yml"))


def refit_profiles(
    files: Sequence[str], out: str, others: Mapping[str, object], json: str | None, csv: str | None
) -> None:
    """Carry out recipes and write their profiles into the folder `out`; `others` are options that do not go with it."""
    check_outputs({"--json": json, "--csv": csv}, inputs=files)
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
    rows = partial(refit_rows, refits)

    def text(style: Style) -> str:
        return "\n\n".join(refit_report(found, style) for found in refits)

    give(json, text, lambda: {"values": rows()}, csv, rows)


def refit_rows(refits: Sequence[Refit]) -> list[dict[str, Any]]:
    """The values of profiles that were found."""
    return [
        {
            "profile": profile,
            "name": field,
            "start": factor * constant.start,
            **dict(zip(("found", "low", "high"), refit.constants[constant.name].times(factor), strict=True)),
            "unit": unit_of(field),
        }
        for refit in refits
        for constant in refit.file.recipe.constants
        for profile, field, factor in constant.targets
    ]


def refit_report(found: Refit, style: Style) -> str:
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
    return f"{title}\n{table}\n\n{_refit_errors(found, style)}"


def _refit_errors(found: Refit, style: Style) -> str:
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
