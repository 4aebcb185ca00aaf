"""The file of a calibrated profile."""

from __future__ import annotations

import os
from pathlib import Path

from offsim.calibration.calibrate import Calibration
from offsim.calibration.profile_text import CORRELATIONS, correlation_rows, entry, quoted
from offsim.inputs.files import atomic_write
from offsim.inputs.packaged import is_path


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
