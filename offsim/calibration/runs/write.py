"""Put fitted values into profile files, leaving the rest of the text as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from offsim.calibration.profile_text import CORRELATIONS, Found, correlation_rows, entry, quoted
from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import median_errors
from offsim.calibration.runs.recipe_file import RecipeFile
from offsim.calibration.runs.refit import Errors, Refit
from offsim.inputs.errors import InputError
from offsim.inputs.files import write_together
from offsim.inputs.packaged import is_path
from offsim.inputs.yaml_input import Document, read_yaml
from offsim.platform.correlations import SECTION, Triangle
from offsim.platform.profiles import profile_file
from offsim.validation.table import HELD_OUT

_ENTRY = re.compile(r"""(\s+\w+:\s*)\{(?:[^{}"']|"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')*\}(\s*(?:\#.*)?)""")
_ROW = re.compile(r"\s+[\w.]+:\s*\[[^\[\]]*\]\s*(#.*)?")


def outputs(files: Sequence[RecipeFile], folder: Path) -> list[Path]:
    """The files that refits of these recipes will write in a folder; raise InputError where they could not be."""
    read_held_out(folder / HELD_OUT.name)
    paths = []
    for file in files:
        starts = {c.name: Interval(c.start, c.start, c.start) for c in file.recipe.constants}
        for name, path in file.files.items():
            profile_text(file, name, starts, {}, "", folder)
            if folder / path.name in paths:
                raise InputError(
                    f"found {name} again, expected each profile in one recipe", f"recipe {file.recipe.name}"
                )
            paths.append(folder / path.name)
    return [*paths, folder / HELD_OUT.name]


def write_refits(refits: Sequence[Refit], folder: Path) -> None:
    """Write the profiles as fitted into a folder, and the errors on left-out runs into its `held_out.json`.

    The profiles' own folder may be that folder. Errors on other hardware that the folder has are kept.
    """
    held_out = read_held_out(folder / HELD_OUT.name)
    texts: dict[Path, bytes] = {}
    for refit in refits:
        for name, path in refit.file.files.items():
            error = median_errors(refit.fitted[name])
            text = profile_text(refit.file, name, refit.found, refit.correlations[name], error, folder)
            texts[folder / path.name] = text.encode()
        held_out |= _summaries(refit.left_out)
    data = orjson.dumps(held_out, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    write_together({**texts, folder / HELD_OUT.name: data})


def read_held_out(path: Path) -> dict[str, Any]:
    """The errors on left-out runs that a folder has; none where it has no such file."""
    try:
        found = orjson.loads(path.read_bytes()) if path.exists() else {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None
    if not isinstance(found, dict):
        raise InputError("found no object, expected errors by hardware", str(path))
    return found


def _summaries(left_out: Mapping[str, Errors]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Hardware -> group -> phase -> {n, median, p90, worst} in percent."""
    report: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for group, found in left_out.items():
        for hardware, table in found.items():
            report.setdefault(hardware, {})[group] = {phase: _summary(100 * values) for phase, values in table.items()}
    return report


def _summary(percent: np.ndarray) -> dict[str, float]:
    figures = {"median": np.median(percent), "p90": np.percentile(percent, 90), "worst": percent.max()}
    return {"n": len(percent), **{name: round(float(figure), 2) for name, figure in figures.items()}}


def profile_text(
    file: RecipeFile, name: str, found: Mapping[str, Interval], together: Triangle, error: str, folder: Path
) -> str:
    """The text of a profile of the recipe with the constants found, to be written into `folder`.

    A profile that inherits a constant from another of the recipe is left to inherit it; the correlations `together`
    are written of all. Raises InputError, with the line, for an entry that is not on one line.
    """
    path = file.files[name]
    document = read_yaml(path)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    base = profile_file(extends, path.parent).resolve() if (extends := document.data.get("extends")) else None
    bases = [other for other, place in file.files.items() if place.resolve() == base]
    added: dict[str, list[str]] = {}
    for constant in file.recipe.constants:
        for target, field, factor in constant.targets:
            if target != name:
                continue
            section, key = field.split(".")
            old = document.data.get(section, {}).get(key)
            if old is None and any((other, field, factor) in constant.targets for other in bases):
                continue
            numbers = found[constant.name].times(factor).numbers
            new = entry(key, Found(*numbers, "fitted", error, (old or {}).get("note", "")))
            if old is None:
                added.setdefault(section, []).append(f"{key}: {new}")
            else:
                _replace(lines, document, section, key, new)
    if extends and folder.resolve() != path.parent.resolve() and (bases or is_path(extends)):
        place = file.files[bases[0]].name if bases else Path(os.path.relpath(base or "", folder.resolve())).as_posix()
        number = document.mark(("extends",)).line - 1
        lines[number] = re.sub(r"""^extends:\s*("[^"]*"|'[^']*'|[^\s#]+)""", f"extends: {quoted(place)}", lines[number])
    _add(lines, document, added)
    _correlate(lines, document, correlation_rows(together))
    return "\n".join([*lines, ""])


def _replace(lines: list[str], document: Document, section: str, key: str, new: str) -> None:
    number = document.mark((section, key)).line - 1
    match = _ENTRY.fullmatch(lines[number])
    if not match:
        problem = f"{section}.{key}: found an entry of another form, expected one line '  {key}: {{value: ...}}'"
        raise document.error((section, key), problem)
    lines[number] = f"{match[1]}{new}{match[2]}"


def _add(lines: list[str], document: Document, added: Mapping[str, Sequence[str]]) -> None:
    """Add entries, by section, that a profile did not have: below the section's name, or in a new section."""
    old = [section for section in added if section in document.data]
    # from the last section to the first, so that the lines above keep their numbers
    for section in sorted(old, key=lambda section: document.mark((section,)).line, reverse=True):
        head = document.mark((section,)).line
        first = document.mark((section, next(iter(document.data[section]), ""))).line - 1
        if first < head or not re.fullmatch(r"\w+:\s*(#.*)?", lines[head - 1]):
            raise document.error((section,), f"{section}: found a section of another form, expected one entry a line")
        indent = lines[first][: -len(lines[first].lstrip())]
        lines[head:head] = [f"{indent}{text}" for text in added[section]]
    for section in added:
        if section not in document.data:
            lines += ["", f"{section}:", *(f"  {text}" for text in added[section])]


def _correlate(lines: list[str], document: Document, rows: Sequence[str]) -> None:
    """Put rows of correlations in place of those that a profile has, or into a new section."""
    head = next(
        (number for number, line in enumerate(lines) if re.fullmatch(rf"{SECTION}:\s*(#.*)?", line)), len(lines)
    )
    if SECTION in document.data:
        end = next((n for n in range(head + 1, len(lines)) if re.match(r"[^\s#]", lines[n])), len(lines))
        kept = [line for line in lines[head + 1 : end] if re.fullmatch(r"\s*(#.*)?", line)]
        old = [line for line in lines[head + 1 : end] if line not in kept]
        if not old or not all(map(_ROW.fullmatch, old)):
            raise document.error((SECTION,), f"{SECTION}: found a section of another form, expected one value a line")
        lines[head:end] = [lines[head], *rows, *kept] if rows else kept
    elif rows:
        lines += ["", CORRELATIONS, *rows]
