"""The file of a calibrated profile."""

from __future__ import annotations

import json
import os
from pathlib import Path

from offsim.calibration.calibrate import Calibration, Found
from offsim.correlations import SECTION, Triangle
from offsim.files import atomic_write
from offsim.packaged import is_path
from offsim.profiles import unit_of

CORRELATIONS = f"{SECTION}:  # of the logarithms of values that were fitted together: of each with those above"
DIGITS = 3
"""Of correlations, behind the point: where values make up for one another, what is left is small."""


def write_profile(path: str | Path, calibration: Calibration, base: str) -> None:
    """Write what was found as a profile that extends the base, which `base` is the name or the path of."""
    path = Path(path)
    extends = Path(os.path.relpath(base, path.parent)).as_posix() if is_path(base) else base
    description = f"Calibrated to measurements; the rest is {calibration.base.name}'s"
    lines = [
        "# Written by offsim calibrate.",
        f"name: {quoted(path.stem)}",
        f"description: {quoted(description)}",
        f"extends: {quoted(extends)}",
        f"validated: {str(bool(calibration.held_out)).lower()}",
    ]
    sections: dict[str, list[str]] = {}
    for name, found in sorted(calibration.found.items()):
        section, key = name.split(".")
        sections.setdefault(section, []).append(f"  {key}: {entry(key, found)}")
    for section, entries in sections.items():
        lines += ["", f"{section}:", *entries]
    if rows := correlation_rows(calibration.correlations):
        lines += ["", CORRELATIONS, *rows]
    with atomic_write(path) as file:
        file.write("\n".join([*lines, ""]).encode())


def entry(field: str, found: Found) -> str:
    """A profile's entry of a value."""
    texts = {"error": found.error, "note": found.note}
    return (
        f"{{value: {found.value:.4g}, low: {found.low:.4g}, high: {found.high:.4g}, unit: {_unit(field)}, "
        f"source: {found.source}{''.join(f', {name}: {quoted(text)}' for name, text in texts.items() if text)}}}"
    )


def correlation_rows(triangle: Triangle) -> list[str]:
    """A profile's rows of correlations, those of a value on one line; none for a single value."""
    width = max(map(len, triangle), default=0) + 1
    return [
        f"  {name + ':':<{width}} [{', '.join(f'{number:z{DIGITS + 3}.{DIGITS}f}' for number in row)}]"
        for name, row in triangle.items()
        if len(triangle) > 1
    ]


def quoted(text: str) -> str:
    """A text as YAML's double quotes give it, which take all of JSON's."""
    return json.dumps(text)


def _unit(field: str) -> str:
    unit = unit_of(field)
    return '"1"' if unit == "1" else unit
