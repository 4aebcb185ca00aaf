"""Put fitted values into profile files, leaving the rest of the text as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from offsim.calibration.recipes import Recipe
from offsim.files import atomic_write
from offsim.profiles import available_profiles


def write_values(recipe: Recipe, values: Mapping[str, float], report: Mapping[str, str]) -> None:
    """Set the recipe's constants in its profiles' files, as fitted; `report` has the fit's errors by profile.

    A profile that inherits a constant from another is left to inherit it.
    """
    files = available_profiles()
    for profile in recipe.profiles:
        text = files[profile].read_text(encoding="utf-8")
        for constant in recipe.constants:
            for target, field, factor in constant.targets:
                if target == profile:
                    text = _set(text, field, values[constant.name] * factor, report[profile])
        with atomic_write(files[profile]) as file:
            file.write(text.encode())


def _set(text: str, field: str, value: float, error: str) -> str:
    section, name = field.split(".")
    inside = re.search(rf"^{section}:\n(?:[ #].*\n|\n)*", text, re.MULTILINE)
    if inside is None:
        return text
    entry = rf"(?m)^(  {name}: \{{)value: [^,]+, (unit: [^,]+), source: \w+,(?: error: \"[^\"]*\",)?"
    replacement = rf'\g<1>value: {value:.4g}, \g<2>, source: fitted, error: "median {error}",'
    return text[: inside.start()] + re.sub(entry, replacement, inside.group()) + text[inside.end() :]
