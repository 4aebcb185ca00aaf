"""A profile of your own machine: measurements laid over a base profile, and how far predictions then are off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offsim.calibration.assignments import set_values, with_values
from offsim.calibration.logs.logged_runs import missing, read_log
from offsim.calibration.microbenchmarks.estimate import Estimate
from offsim.calibration.microbenchmarks.estimates import fit_microbenchmarks
from offsim.calibration.microbenchmarks.rows import read_microbenchmarks
from offsim.calibration.profile_text import ProfileValue
from offsim.calibration.runs.fit import (
    NOISE,
    Point,
    Recipe,
    apply,
    fit,
    intervals,
    median_errors,
    points,
    predict,
    residuals,
    runs_on,
    sensitivities,
)
from offsim.calibration.runs.plausible import check, general_recipe, value_of
from offsim.calibration.trace_fits.estimates import fit_trace
from offsim.inputs.errors import InputError
from offsim.inputs.packaged import is_path
from offsim.inputs.units import unit_of
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import load_profile
from offsim.traces.read import NAMES, read_trace
from offsim.validation.folder import SUFFIXES as TABLES
from offsim.validation.run_table import MeasuredRun, read_runs, run_of

if TYPE_CHECKING:
    import pandas as pd

    from offsim.views.figure import Picture

HOLDOUT = 0.3
"""The share of the configurations that takes no part in the fit where nothing else is asked for."""

FITTED_WITH = {"gpu.kernel_latency_s": "gpu.matrix_flops_per_s"}
"""Value -> the one that it is fitted with: both are taken from one trace, preferably from one that determines both."""


@dataclass
class Calibration:
    """What measurements made of a base profile."""

    base: HardwareProfile
    fixed: tuple[str, ...] = ()
    """Names of the values that the user set, which no measurement changes."""
    found: dict[str, ProfileValue] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    others: tuple[Estimate, ...] = ()
    fitted: tuple[Point, ...] = ()
    held_out: tuple[Point, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def profile(self) -> HardwareProfile:
        """The base with the values found in place of its own."""
        return with_values(self.base, {name: found.value for name, found in self.found.items()})

    @property
    def start(self) -> HardwareProfile:
        """The base with the values that were set, before anything is fitted."""
        return with_values(self.base, {name: self.found[name].value for name in self.fixed})

    @property
    def residuals(self) -> dict[str, np.ndarray]:
        """Phase -> log(measured / predicted) of each configuration held out."""
        return phase_residuals(self.held_out, self.profile)

    @property
    def values(self) -> list[tuple[str, ProfileValue]]:
        """The values found by dotted name, section by section; those without a section come first."""
        return sorted(self.found.items(), key=lambda item: ("." in item[0], item[0]))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The values found, each beside the base profile's, which is None where that has none."""
        return [
            {
                "name": name,
                "base": value_of(self.base, name),
                "found": value.value,
                "low": value.low,
                "high": value.high,
                "unit": unit_of(name),
                "source": value.source,
                "note": value.note,
            }
            for name, value in self.values
        ]

    @property
    def table(self) -> pd.DataFrame:
        """One row per value found, by its field in the profile; `base` is the base profile's, NaN where it has none."""
        import pandas as pd

        table = pd.DataFrame(self.rows).set_index("name").rename_axis(None).sort_index()
        return table.astype(dict.fromkeys(("base", "found", "low", "high"), float))

    def plot(self) -> Picture:
        """Draw each value found, with its interval, as a multiple of the base profile's."""
        from offsim.calibration.plot_found import plot_found

        return plot_found(self.table, base=self.base.name)


def calibrate(
    files: Sequence[str], base: str, holdout: float = HOLDOUT, assignments: Sequence[str] = ()
) -> Calibration:
    """Fit what the files determine: harness folders or `.jsonl` files, traces, tables of runs (`.csv`), training logs.

    Microbenchmarks come first, then traces: what these determine is not fitted to runs. Of the runs' configurations
    the share `holdout` takes no part in the fit. `assignments` such as `host.memory_bytes=2e12` set values that no
    measurement then changes. Raises InputError for the first thing wrong with a file, or against physics in it.
    """
    if not 0 <= holdout < 1:
        raise InputError(f"found {holdout:g}, expected at least 0 and less than 1", "--holdout")
    given = set_values(load_profile(base), assignments)
    calibration = Calibration(load_profile(base), tuple(given), dict(given))
    profile = calibration.start
    runs: list[MeasuredRun] = []
    traces: list[Path] = []
    of_runs: list[str] = []
    for name in files:
        path = Path(name)
        if os.path.isdir(path) or path.suffix == ".jsonl":
            microbenchmarks = read_microbenchmarks(path)
            _take(calibration, fit_microbenchmarks(microbenchmarks, profile.host.cores_per_rank, str(path)))
        elif path.name.endswith(NAMES):
            traces.append(path)
        else:
            of_runs.append(name)
            runs += read_runs(path).runs if path.name.endswith(TABLES) else _log(path, base)
    _take_traces(calibration, traces)
    if runs:
        _take_runs(calibration, runs, of_runs, holdout)
    known = general_recipe(profile).constants
    calibration.kept = tuple(constant.name for constant in known if constant.name not in calibration.found)
    if calibration.found.keys() == given.keys():
        raise InputError("found nothing that determines a value of the profile, expected more measurements", files[0])
    return calibration


def _log(path: Path, base: str) -> list[MeasuredRun]:
    """A log's runs, on the hardware that is calibrated."""
    rows = read_log(path)
    for row in rows:
        row["hardware"] = str(Path(base).resolve()) if is_path(base) else base
        if blank := missing(row):
            hint = "make a table of it with `offsim logs` and fill them"
            raise InputError(f"the log does not say: {', '.join(blank)}; {hint}", str(path))
    return [run_of(path, number, row) for number, row in enumerate(rows, 1)]


def _take(calibration: Calibration, estimates: Iterable[Estimate]) -> None:
    base = calibration.start
    for estimate in estimates:
        name, value = estimate.name, estimate.interval.value
        if name in calibration.fixed:
            continue
        if not estimate.of_profile or (estimate.at_least and (value_of(base, name) or 0) >= value):
            calibration.others += (estimate,)
            continue
        check(base, name, value, estimate.file)
        calibration.found[name] = ProfileValue(
            *estimate.interval, estimate.source, note=estimate.origin, at_least=estimate.at_least
        )


def _take_traces(calibration: Calibration, paths: Sequence[Path]) -> None:
    """Take what microbenchmarks did not determine, each value from the trace with the narrowest interval of it."""
    known = {*calibration.found, *(estimate.name for estimate in calibration.others)}
    best: dict[str, list[Estimate]] = {}
    for path in paths:
        groups: dict[str, list[Estimate]] = {}
        for estimate in fit_trace(read_trace(path), calibration.start.gpus_per_node):
            if estimate.of_profile:
                check(calibration.start, estimate.name, estimate.interval.value, estimate.file)
            name = FITTED_WITH.get(estimate.name, estimate.name)
            if not known & {name, estimate.name}:
                groups.setdefault(name, []).append(estimate)
        for name, group in groups.items():
            best[name] = min(best.get(name, group), group, key=lambda g: (-len(g), g[0].interval.spread))
    _take(calibration, (estimate for group in best.values() for estimate in group))


def _take_runs(calibration: Calibration, runs: Sequence[MeasuredRun], files: Sequence[str], holdout: float) -> None:
    base = calibration.base
    own = runs_on(runs, [base.name])
    if not own:
        named = sorted({run.scenario.hardware for run in runs})
        raise InputError(f"found runs on {', '.join(named)}, expected some on {base.name}, the base", files[0])
    if others := len(runs) - len(own):
        calibration.left_out += (f"{others} of {len(runs)} runs, of other hardware than {base.name}",)
    if partial := sum(not run.has_all_phases for run in own):
        calibration.left_out += (f"{partial} of {len(runs)} runs, without times of all phases",)
    start = calibration.profile
    data, unfit = _that_fit(points(own), start)
    calibration.left_out += unfit
    if not data:
        hint = "where the machine has more than the base, --set host.memory_bytes=... or gpu.memory_bytes=..."
        raise InputError(f"found no run with times of all phases that fits in memory, expected some; {hint}", files[0])
    training, held_out = split(data, holdout)
    calibration.fitted, calibration.held_out = tuple(training), tuple(held_out)
    profiles = {base.name: start}
    known = [name for name, found in calibration.found.items() if not found.at_least]
    recipe = _influential(general_recipe(start, known), training, profiles)
    values = fit(recipe, training, profiles)
    judged = held_out or training
    off = phase_residuals(judged, apply(recipe, values, profiles)[base.name])
    error = f"{median_errors(off)} on {len(judged)} {'held-out' if held_out else 'fitted'} configurations"
    note = f"runs of {', '.join(Path(name).name for name in files)}"
    for name, found in intervals(recipe, values, training, profiles).items():
        check(start, name, found.value, files[0])
        calibration.found[name] = ProfileValue(*found, "fitted", error, note)


def _that_fit(data: Sequence[Point], profile: HardwareProfile) -> tuple[list[Point], tuple[str, ...]]:
    """The points that are predicted to fit in memory, and what is wrong with each other one."""
    fitting: list[Point] = []
    left_out: tuple[str, ...] = ()
    for point in data:
        try:
            predict(point, profile)
        except InputError as error:
            left_out += (str(error),)
        else:
            fitting.append(point)
    return fitting, left_out


def split(data: Sequence[Point], holdout: float) -> tuple[list[Point], list[Point]]:
    """Points to fit and points held out: the same configurations are held out whatever else is measured with them."""

    def order(point: Point) -> str:
        configuration = point.run.scenario.model_dump_json(exclude={"name", "hardware"})
        return hashlib.sha256(configuration.encode()).hexdigest()

    ordered = sorted(data, key=order)
    count = min(round(holdout * len(ordered)), len(ordered) - 1)
    return ordered[count:], ordered[:count]


def _influential(recipe: Recipe, data: Sequence[Point], profiles: Mapping[str, HardwareProfile]) -> Recipe:
    """Leave out the constants that these runs hardly depend on: the fit would only keep them where they are."""
    starts = {constant.name: constant.start for constant in recipe.constants}
    influence = np.linalg.norm(sensitivities(recipe, starts, data, profiles), axis=0)
    kept = [constant for constant, size in zip(recipe.constants, influence, strict=True) if size > NOISE]
    return replace(recipe, constants=tuple(kept))


def phase_residuals(data: Sequence[Point], profile: HardwareProfile) -> dict[str, np.ndarray]:
    """Phase ("sum" is of all) -> log(measured / predicted) of each configuration, as a profile predicts it."""
    return residuals(data, {profile.name: profile})[profile.name]
