"""Reading sweep files (docs/sweeps.md): the scenarios to start from, axes, and the combinations to leave out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from offsim.inputs.errors import InputError, KeyPath, nearest, suggestion
from offsim.inputs.fields import Section
from offsim.inputs.packaged import is_path, packaged_file, packaged_files
from offsim.inputs.yaml_input import Document, document_from, dotted, read_yaml, validate
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers.registry import scenario_scheduler
from offsim.study.sweeps.axes import Axis, Cell, Condition, count_points
from offsim.study.sweeps.fields import check_field, check_value, knowing
from offsim.study.sweeps.labels import cells_of, same_cell
from offsim.study.sweeps.ranges import read_values

SHIPPED = "scenarios/sweeps"
BASE = "scenario"
"""The column of the scenario that a point starts from."""

_Column = tuple[list[Any], list[Cell]]


class _File(Section):
    base: Any = Field(description="the scenario to start from, or a list of them")
    axes: dict[str, Any] = Field(default_factory=dict, description="dotted name of a value -> the values to try")
    skip: list[dict[str, Any]] = Field(default_factory=list, description="combinations to leave out")


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. The first axis is that of the scenarios to start from."""

    bases: tuple[Scenario, ...]
    axes: tuple[Axis, ...]
    skip: tuple[Condition, ...]
    content: dict[str, Any]
    """What was written, as plain values: `base`, `axes`, `skip`."""

    @cached_property
    def count(self) -> int:
        """How many points there are, counted without listing them."""
        return count_points(self.axes, self.skip)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that say where a point is: `scenario`, then those of the axes."""
        return tuple(column for axis in self.axes for column in axis.columns)


def read_sweep(source: str | Path | Mapping[str, Any]) -> Sweep:
    """Read and check a sweep: a file's path, the name of one that comes with offsim, or a mapping of the same shape.

    Raises InputError that names the file and line of the first thing wrong.
    """
    if isinstance(source, Mapping):
        document, folder = document_from(source), Path()
    else:
        path = _sweep_file(source)
        document, folder = read_yaml(path), path.parent
    return _Reader(document, folder).sweep()


def _sweep_file(source: str | Path) -> Path:
    if isinstance(source, Path) or is_path(source):
        return Path(source)
    if path := packaged_file(SHIPPED, source):
        return path
    near = suggestion(source, packaged_files(SHIPPED))
    raise InputError(f"unknown sweep '{source}'{near} (a path contains / or ends in .yaml)")


class _Reader:
    """Reads one sweep from top to bottom: an axis may depend on those above it."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.file = validate(document, _File)
        self.axes: list[Axis] = []
        self.columns: dict[str, tuple[int, int]] = {}  # name -> number of its axis, place in it
        self.deciding = 0  # the axis that decides on the scheduler; -1 where it does so for some points only
        self.schedulers: list[str] = []  # by position on that axis

    def sweep(self) -> Sweep:
        bases = self._bases()
        self.schedulers = [base.scheduler.name for base in bases]
        for name, given in self.file.axes.items():
            self._axis(name, given)
        skip = [self._condition(("skip", index), given) for index, given in enumerate(self.file.skip)]
        content = {key: self.document.data[key] for key in _File.model_fields if key in self.document.data}
        return Sweep(tuple(bases), tuple(self.axes), tuple(skip), content)

    def _bases(self) -> list[Scenario]:
        given = self.file.base
        listed = given if isinstance(given, list) else [given]
        if not listed:
            raise self.document.error(("base",), "base: found an empty list, expected at least one scenario")
        places: list[KeyPath] = [("base", index) if listed is given else ("base",) for index in range(len(listed))]
        bases = [self._base(one, at) for one, at in zip(listed, places, strict=True)]
        labels = [base.name or f"scenario {number}" for number, base in enumerate(bases, start=1)]
        labels = [label if labels.count(label) == 1 else str(one) for label, one in zip(labels, listed, strict=True)]
        for label, at in zip(labels, places, strict=True):
            if labels.count(label) > 1:
                raise self.document.error(at, f"base: found '{label}' twice, expected scenarios of different names")
        self._add(Axis((BASE,), [(base,) for base in bases], [(label,) for label in labels]))
        return bases

    def _base(self, given: Any, at: KeyPath) -> Scenario:
        if not isinstance(given, str | Path | Mapping | Scenario):
            raise self.document.unexpected(at, "a scenario's name or path, or a scenario")
        beside = isinstance(given, Path) or (isinstance(given, str) and is_path(given))
        try:
            base = load_scenario(self.folder / str(given) if beside else given)
            scenario_scheduler(base)
        except InputError as error:
            raise error if error.where else self.document.error(at, error.problem) from None
        return base

    def _axis(self, name: str, given: Any) -> None:
        at: KeyPath = ("axes", name)
        when: dict[int, frozenset[int]] = {}
        if isinstance(given, Mapping) and "when" in given:
            when = dict(self._condition((*at, "when"), given["when"]))
            given = {key: value for key, value in given.items() if key != "when"}
        if isinstance(given, Mapping) and given.keys() == {"zip"}:
            columns, parts = self._zipped((*at, "zip"), given["zip"])
        else:
            columns, parts = (name,), [self._column(at, name, given)]
        for column in columns:
            for number, meant in self._knowing(column).items():
                when[number] = when.get(number, meant) & meant
        values = list(zip(*(values for values, _ in parts), strict=True))
        cells = list(zip(*(cells for _, cells in parts), strict=True))
        axis = Axis(columns, values, cells, when)
        for place, column in enumerate(columns):
            if column in self.columns:
                raise self.document.error(at, f"duplicate axis '{column}'")
            self._note_schedulers(axis, column, place)
        self._add(axis)

    def _add(self, axis: Axis) -> None:
        self.columns |= {column: (len(self.axes), place) for place, column in enumerate(axis.columns)}
        self.axes.append(axis)

    def _zipped(self, at: KeyPath, given: Any) -> tuple[tuple[str, ...], list[_Column]]:
        if not isinstance(given, Mapping) or not given:
            raise self.document.unexpected(at, "the axes to zip, {name: values, name: values}")
        parts = [self._column((*at, name), name, values) for name, values in given.items()]
        lengths = [len(values) for values, _ in parts]
        if len(set(lengths)) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in zip(given, lengths, strict=True))
            raise self.document.error(at, f"{dotted(at)}: found {counts}, expected equally many values of each")
        return tuple(given), parts

    def _column(self, at: KeyPath, name: str, given: Any) -> _Column:
        """Values and cells of one column."""
        schedulers = list(dict.fromkeys(self.schedulers))
        check_field(self.document, at, name, schedulers)
        written, labels, places = read_values(self.document, at, given)
        values = [
            check_value(name, value, self.document.mark(place), schedulers, self.folder)
            for value, place in zip(written, places, strict=True)
        ]
        return values, [*(labels or cells_of(written))]

    def _knowing(self, column: str) -> Condition:
        """The condition that the scheduler has the option that this column sets; empty where all of them do."""
        known = knowing(column, self.schedulers)
        if self.deciding < 0 or len(known) == len(self.schedulers):
            return {}
        return {self.deciding: frozenset(n for n, name in enumerate(self.schedulers) if name in known)}

    def _note_schedulers(self, axis: Axis, column: str, place: int) -> None:
        if column not in ("scheduler", "scheduler.name") or (
            column == "scheduler" and "scheduler.name" in self.columns
        ):
            return
        named = [row[place] if column == "scheduler.name" else row[place]["name"] for row in axis.values]
        if axis.when:
            self.deciding, self.schedulers = -1, self.schedulers + named
        else:
            self.deciding, self.schedulers = len(self.axes), named

    def _condition(self, at: KeyPath, given: Any) -> Condition:
        if not isinstance(given, Mapping) or not given:
            raise self.document.unexpected(at, "a condition, {axis: value} or {axis: [value, value]}")
        condition: dict[int, frozenset[int]] = {}
        for name, wanted in given.items():
            if name not in self.columns:
                near = nearest(name, self.columns)
                hint = f"; did you mean '{near}'?" if near else f"; expected one of: {', '.join(self.columns)}"
                raise self.document.error((*at, name), f"'{name}' is no axis above{hint}")
            number, place = self.columns[name]
            cells = [row[place] for row in self.axes[number].cells]
            meant: set[int] = set()
            for one in wanted if isinstance(wanted, list) else [wanted]:
                found = {position for position, cell in enumerate(cells) if same_cell(cell, one)}
                if not found:
                    listed = ", ".join(str(cell) for cell in cells[:10]) + (", ..." if len(cells) > 10 else "")
                    problem = f"{dotted((*at, name))}: found {one!r}, expected a value of that axis: {listed}"
                    raise self.document.error((*at, name), problem)
                meant |= found
            condition[number] = condition.get(number, frozenset(meant)) & frozenset(meant)
        return condition
