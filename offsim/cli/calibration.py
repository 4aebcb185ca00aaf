"""What a calibration found, as text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from offsim.calibration.calibrate import Calibration, phase_residuals
from offsim.calibration.runs.fit import relative_errors
from offsim.calibration.runs.plausible import value_of
from offsim.cli.terminal import PLAIN, Style, wrapped
from offsim.platform.profiles import unit_of


def calibration_report(calibration: Calibration, style: Style = PLAIN) -> str:
    """What was found and from what, what was kept, and how far predictions are off before and after."""
    blocks = [_found(calibration, style)]
    for estimate in calibration.others:
        value, low, high = (f"{number:.3g}" for number in estimate.interval.numbers)
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
    table = style.table(rows, ("value", "base", "found", "low", "high", "source"), "lrrrrl", wrap=False)
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
