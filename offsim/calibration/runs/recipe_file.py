"""Reading recipes: YAML files that say which constants of which profiles are fitted to which measured runs.

    name: my-cluster
    runs: runs.csv                 # beside this file; without it, the table that comes with offsim
    profiles: [my-node]            # names, or paths from here; fitted together
    leave_out: model               # the column whose values are left out one by one, to judge the fit by
    leave_out_too: {two nodes: {nodes: "2"}}  # further groups, each of the runs with these cells
    constants:
      - {field: link.h2d_bytes_per_s, start: 2.2e10, spread: 0.1}
      - {field: host.adam_params_per_s, start: 5.4e9, spread: 0.2, also: {host.scale_params_per_s: 3.5}}

`also` names fields that are so many times the constant, `profiles` of a constant those that it is of where that is not
all of them, and `most` what it cannot exceed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from offsim.calibration.runs.fit import Constant, Point, Recipe, points, runs_on
from offsim.calibration.runs.plausible import fields_of
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError, KeyPath, suggestion
from offsim.inputs.fields import Number, Section
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import load_profile, profile_file
from offsim.validation.folder import shipped_runs
from offsim.validation.run_table import RunTable, read_runs

Positive = Annotated[Number, Field(gt=0)]


class _Constant(Section):
    field: str = Field(description="what is fitted, such as link.h2d_bytes_per_s")
    start: Positive = Field(description="its published or physical value")
    spread: Positive = Field(description="how far its natural logarithm may plausibly be from the start's")
    also: dict[str, Positive] = Field(default_factory=dict)
    profiles: list[str] = Field(default_factory=list)
    most: Number | None = None


class _File(Section):
    name: str = Field(min_length=1, description="the recipe's")
    runs: str = ""
    profiles: list[str] = Field(description="those that are fitted together")
    leave_out: str = Field(description="the column whose values are left out one by one")
    leave_out_too: dict[str, dict[str, str]] = Field(default_factory=dict, description="groups: column -> cell")
    constants: list[dict[str, Any]] = Field(description="what is fitted")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe and what it is applied to: profiles, their files, and points.

    Left out in turn are `groups`, the points of each value of a column, and `further` ones, which overlap them.
    """

    recipe: Recipe
    profiles: Mapping[str, HardwareProfile]
    files: Mapping[str, Path]
    data: tuple[Point, ...]
    groups: Mapping[str, tuple[Point, ...]]
    further: Mapping[str, tuple[Point, ...]]


def read_recipe(path: str | Path) -> RecipeFile:
    """Read a recipe, its profiles and its runs; raise InputError, with the line, for the first thing wrong."""
    path = Path(path)
    document = read_yaml(path)
    file = validate(document, _File)
    files = _profiles(document, file, path.parent)
    profiles = {name: load_profile(profile) for name, profile in files.items()}
    recipe = Recipe(file.name, _constants(document, profiles))
    table = read_runs(path.parent / file.runs) if file.runs else shipped_runs()
    data = points(runs_on(table.runs, profiles))
    for index, name in enumerate(profiles):
        if all(point.run.scenario.hardware != name for point in data):
            problem = f"profiles: found no run on {name} with times of all phases in {table.path}, expected some"
            raise document.error(("profiles", index), problem)
    return RecipeFile(recipe, profiles, files, tuple(data), *_groups(document, file, table, data))


def _profiles(document: Document, file: _File, folder: Path) -> dict[str, Path]:
    if not file.profiles:
        raise document.unexpected(("profiles",), "the names of the profiles to fit")
    files: dict[str, Path] = {}
    for index, written in enumerate(file.profiles):
        at: KeyPath = ("profiles", index)
        try:
            found = profile_file(written, folder)
        except InputError as error:
            raise document.error(at, error.problem) from None
        if found.stem in files:
            raise document.unexpected(at, "each profile once")
        files[found.stem] = found
    return files


def _constants(document: Document, profiles: Mapping[str, HardwareProfile]) -> tuple[Constant, ...]:
    fields = list(dict.fromkeys(field for profile in profiles.values() for field in fields_of(profile)))
    if not document.data["constants"]:
        raise document.unexpected(("constants",), "what to fit")
    constants = []
    set_by: dict[tuple[str, str], KeyPath] = {}
    for index, data in enumerate(document.data["constants"]):
        at: KeyPath = ("constants", index)
        given = validate(document, _Constant, data, at)
        for field, place in ((given.field, (*at, "field")), *((name, (*at, "also", name)) for name in given.also)):
            if field not in fields:
                raise document.error(place, f"unknown value '{field}' of a profile{suggestion(field, fields)}")
        for number, name in enumerate(given.profiles):
            if name not in profiles:
                problem = f"unknown profile '{name}' of the recipe{suggestion(name, profiles)}"
                raise document.error((*at, "profiles", number), problem)
        most = math.inf if given.most is None else given.most
        if most < given.start:
            raise document.unexpected((*at, "most"), f"at least the start ({given.start:g})")
        of = tuple(given.profiles or profiles)
        factors = [(given.field, 1.0), *given.also.items()]
        targets = tuple((profile, field, factor) for profile in of for field, factor in factors)
        for profile, field, _ in targets:
            if (profile, field) in set_by:
                first = document.mark(set_by[profile, field]).line
                raise document.error(at, f"found {field} of {profile} again; the first is on line {first}")
            set_by[profile, field] = at
        name = f"{given.field} ({', '.join(of)})"
        constants.append(Constant(name, given.start, given.spread, targets, most))
    return tuple(constants)


_Groups = dict[str, tuple[Point, ...]]


def _groups(document: Document, file: _File, table: RunTable, data: Sequence[Point]) -> tuple[_Groups, _Groups]:
    """What is left out in turn: the runs of each value of the column that are not all in further groups, and those."""
    keys: list[tuple[KeyPath, str]] = [(("leave_out",), file.leave_out)]
    keys += [(("leave_out_too", name, key), key) for name, cells in file.leave_out_too.items() for key in cells]
    for at, column in keys:
        if column not in table.columns:
            raise document.error(at, f"unknown column '{column}' of {table.path}{suggestion(column, table.columns)}")
    further = {
        name: tuple(point for point in data if all(point.run.cell(key) == cell for key, cell in cells.items()))
        for name, cells in file.leave_out_too.items()
    }
    for name, found in further.items():
        if not 0 < len(found) < len(data):
            raise document.unexpected(("leave_out_too", name), "cells of some of the runs, but not of all")
    values = sorted({point.run.cell(file.leave_out) for point in data})
    if len(values) < 2:
        problem = f"leave_out: found one '{file.leave_out}' in the runs, expected several to leave out one by one"
        raise document.error(("leave_out",), problem)
    groups = {value: tuple(point for point in data if point.run.cell(file.leave_out) == value) for value in values}
    known = [point for found in further.values() for point in found]
    return {value: found for value, found in groups.items() if any(one not in known for one in found)}, further
