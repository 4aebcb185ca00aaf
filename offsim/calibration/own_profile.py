"""The file of a calibrated profile."""

from __future__ import annotations

import os
from pathlib import Path

from ruamel.yaml.comments import CommentedMap

from offsim.calibration.calibrate import Calibration
from offsim.calibration.profile_text import put, quoted, text_of
from offsim.calibration.runs.fit import CONFIGURATIONS, configurations, scores
from offsim.inputs.files import write_together
from offsim.inputs.packaged import is_path
from offsim.platform.held_out import FILE_NAME, held_out_text, read_held_out
from offsim.platform.measured import FILE_NAME as MEASURED
from offsim.platform.measured import measured_text, read_measured


def write_profile(path: str | Path, calibration: Calibration, base: str) -> None:
    """Write what was found as a profile that extends the base, which `base` is the name or the path of.

    The residuals of the runs held out go into the `held_out.json` beside it, the configurations of all into the
    `measured.json`; both keep what they have of other profiles.
    """
    path = Path(path)
    extends = Path(os.path.relpath(base, path.parent)).as_posix() if is_path(base) else base
    document = CommentedMap(
        name=quoted(path.stem),
        description=quoted(f"Calibrated to measurements; the rest is {calibration.base.name}'s"),
        extends=quoted(extends),
        validated=str(bool(calibration.held_out)).lower(),
    )
    document.yaml_set_start_comment("Written by offsim calibrate.")
    for name, value in calibration.values:
        put(document, name, value)
    files = {path: text_of(document).encode()}
    held_out = read_held_out(path.with_name(FILE_NAME))
    known = held_out.pop(path.stem, None)
    if calibration.held_out:
        held_out[path.stem] = {CONFIGURATIONS: scores(calibration.residuals)}
    if known or calibration.held_out:
        files[path.with_name(FILE_NAME)] = held_out_text(held_out)
    measured = read_measured(path.with_name(MEASURED))
    data = [*calibration.held_out, *calibration.fitted]
    if measured.pop(path.stem, None) or data:
        groups = [CONFIGURATIONS] * len(calibration.held_out) + [""] * len(calibration.fitted)
        measured[path.stem] = configurations(data, calibration.profile, groups)
        files[path.with_name(MEASURED)] = measured_text(measured)
    write_together(files)
