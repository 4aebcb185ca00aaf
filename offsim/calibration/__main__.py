"""Refit the profiles of the measured testbeds: `python -m offsim.calibration [RUNS.csv]`.

Writes fitted values into the profile files of this source tree, and the error on models left out of the fit into
`offsim/validation/held_out.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import orjson

from offsim.calibration.fit import PHASES, Point, Profiles, apply, errors, fit, points
from offsim.calibration.recipes import RECIPES, Recipe
from offsim.calibration.write import write_values
from offsim.profiles import load_profile
from offsim.validation.table import HELD_OUT, SHIPPED_RUNS, read_runs


def _summary(values: np.ndarray) -> dict[str, float]:
    percent = 100 * values
    return {
        "n": len(values),
        "median": round(float(np.median(percent)), 2),
        "p90": round(float(np.percentile(percent, 90)), 2),
        "worst": round(float(percent.max()), 2),
    }


_Report = dict[str, dict[str, dict[str, dict[str, float]]]]


def _held_out(recipe: Recipe, data: list[Point], profiles: Profiles) -> _Report:
    """Errors on each model when its runs are left out of the fit: hardware -> model -> phase -> summary."""
    report: _Report = {}
    for model in sorted({point.run.cell("model") for point in data}):
        others = [point for point in data if point.run.cell("model") != model]
        held_out = [point for point in data if point.run.cell("model") == model]
        values = fit(recipe, others, profiles, print)
        for hardware, table in errors(held_out, apply(recipe, values, profiles)).items():
            report.setdefault(hardware, {})[model] = {phase: _summary(found) for phase, found in table.items()}
    return report


def main(arguments: list[str]) -> None:
    """Fit all recipes, and write what was found."""
    runs = read_runs(Path(arguments[0]) if arguments else SHIPPED_RUNS).runs
    held_out: _Report = {}
    for recipe in RECIPES:
        profiles = {name: load_profile(name) for name in recipe.profiles}
        data = points(run for run in runs if run.scenario.hardware in recipe.profiles)
        values = fit(recipe, data, profiles, print)
        found = errors(data, apply(recipe, values, profiles))
        for hardware, table in found.items():
            for phase, error in table.items():
                print(f"  {hardware:28s} {phase:9s} {_summary(error)}")
        report = {hw: ", ".join(f"{p} {100 * np.median(t[p]):.1f} %" for p in PHASES) for hw, t in found.items()}
        for constant in recipe.constants:
            print(f"  {constant.name:40s} {values[constant.name]:.4g}")
        write_values(recipe, values, report)
        held_out |= _held_out(recipe, data, profiles)
    HELD_OUT.write_bytes(orjson.dumps(held_out, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main(sys.argv[1:])
