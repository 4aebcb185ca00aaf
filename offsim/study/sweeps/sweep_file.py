"""Reading sweep files (docs/sweeps.md): the scenarios to start from, axes, and the combinations to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from offsim.inputs.document import Document, document_from, dotted
from offsim.inputs.errors import InputError, KeyPath, suggestion
from offsim.inputs.fields import Section
from offsim.inputs.packaged import is_path
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml
from offsim.platform.profiles import load_profile
from offsim.scenario import Scenario, load_scenario, scenario_file, scenario_profile
from offsim.schedulers.registry import scenario_scheduler
from offsim.study.sweeps.axes import Axis, Cell, CellIndex, Condition, Sweep, cells_of
from offsim.study.sweeps.fields import axis_fields, check_name, check_value, has_field
from offsim.study.sweeps.values import read_values

SHIPPED = "scenarios/sweeps"
BASE = "scenario"
"""The column of the scenario that a point starts from."""

CHOOSING = ("scheduler", "scheduler.name")
"""Columns that choose the scheduler, on which it depends what else may be an axis."""

_Column = tuple[list[Any], list[Cell]]
"""Values and cells."""


class _File(Section):
    base: Any = Field(description="the scenario to start from, or a list of them")
    axes: dict[str, Any] = Field(default_factory=dict, description="dotted name of a value -> the values to try")
    skip: list[dict[str, Any]] = Field(default_factory=list, description="combinations to leave out")


def read_sweep(source: str | Path | Mapping[str, Any], base: Scenario | None = None) -> Sweep:
    """Read and check a sweep: a file's path, the name of one that comes with offsim, or a mapping of the same shape.

    `base` replaces the scenarios that it starts from.
    Raises InputError that names the file and line of the first thing wrong.
    """
    if isinstance(source, Mapping):
        document, folder = document_from(source), Path()
    else:
        path = scenario_file(source, "sweep", SHIPPED)
        document, folder = read_yaml(path), path.parent
    if base is not None:
        document.data["base"] = base
    return _Reader(document, folder).sweep()


class _Reader:
    """Reads one sweep: the axes that choose schedulers and hardware first, as others depend on them."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.file = validate(document, _File)
        self.bases, self.labels = self._bases()
        self.named: list[str] = []  # schedulers that axes name
        self.profiles = [load_profile(base.hardware, base.folder) for base in self.bases]
        self.columns = {BASE}

    def sweep(self) -> Sweep:
        read = {name: self._axis(name) for name in sorted(self.file.axes, key=lambda name: not self._is_first(name))}
        first = Axis((BASE,), [(base,) for base in self.bases], [(label,) for label in self.labels])
        axes = (first, *(read[name] for name in self.file.axes))
        indices = {
            column: (number, CellIndex([row[place] for row in axis.cells]))
            for number, axis in enumerate(axes)
            for place, column in enumerate(axis.columns)
        }
        skip = [self._condition(("skip", index), given, axes, indices) for index, given in enumerate(self.file.skip)]
        content = {key: self.document.data[key] for key in _File.model_fields if key in self.document.data}
        return Sweep(tuple(self.bases), axes, tuple(skip), content)

    @property
    def schedulers(self) -> list[str]:
        """Under which the sweep runs: those that axes name, else those of the scenarios."""
        return list(dict.fromkeys(self.named or [base.scheduler.name for base in self.bases]))

    def _bases(self) -> tuple[list[Scenario], list[str]]:
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
        return bases, labels

    def _base(self, given: Any, at: KeyPath) -> Scenario:
        if not isinstance(given, str | Path | Mapping | Scenario):
            raise self.document.unexpected(at, "a scenario's name or path, or a scenario")
        beside = isinstance(given, Path) or (isinstance(given, str) and is_path(given))
        try:
            base = load_scenario(self.folder / str(given) if beside else given)
            scenario_scheduler(base)
            scenario_profile(base)
        except InputError as error:
            raise error if error.where else self.document.error(at, error.problem) from None
        return base

    def _is_first(self, name: str) -> bool:
        given = self.file.axes[name]
        zipped = given.get("zip") if isinstance(given, Mapping) else None
        return not {*CHOOSING, "hardware"}.isdisjoint([name, *(zipped if isinstance(zipped, Mapping) else ())])

    def _axis(self, name: str) -> Axis:
        at: KeyPath = ("axes", name)
        given = self.file.axes[name]
        if isinstance(given, Mapping) and given.keys() == {"zip"}:
            parts = self._zipped((*at, "zip"), given["zip"])
        else:
            parts = {name: self._column(at, name, given)}
        if again := self.columns & parts.keys():
            raise self.document.error(at, f"duplicate axis '{min(again)}'")
        self.columns |= parts.keys()
        values = list(zip(*(values for values, _ in parts.values()), strict=True))
        cells = list(zip(*(cells for _, cells in parts.values()), strict=True))
        under = frozenset(one for one in self.schedulers if all(has_field(one, column) for column in parts))
        return Axis(tuple(parts), values, cells, under)

    def _zipped(self, at: KeyPath, given: Any) -> dict[str, _Column]:
        if not isinstance(given, Mapping) or not given:
            raise self.document.unexpected(at, "the axes to zip, {name: values, name: values}")
        parts = {name: self._column((*at, name), name, values) for name, values in given.items()}
        if len({len(values) for values, _ in parts.values()}) > 1:
            counts = ", ".join(f"{name} {len(values)}" for name, (values, _) in parts.items())
            raise self.document.error(at, f"{dotted(at)}: found {counts}, expected equally many values of each")
        return parts

    def _column(self, at: KeyPath, name: str, given: Any) -> _Column:
        fields = axis_fields(self.schedulers, self.profiles)
        check_name(self.document, at, name, fields, self.schedulers)
        if isinstance(given, Mapping) and "from" in given:
            given = {key: self.document.without_unit((*at, key), one, name) for key, one in given.items()}
        written, labels, places = read_values(self.document, at, given)
        values = [
            check_value(name, value, self.document.mark(place), fields, self.folder)
            for value, place in zip(written, places, strict=True)
        ]
        if name in CHOOSING:
            self.named += [value if isinstance(value, str) else value["name"] for value in values]
        if name == "hardware":
            self.profiles += [load_profile(value) for value in values]
        numbers = [value if isinstance(value, float) else one for value, one in zip(values, written, strict=True)]
        return values, [*(labels or cells_of(numbers))]

    def _condition(
        self, at: KeyPath, given: Any, axes: Sequence[Axis], indices: Mapping[str, tuple[int, CellIndex]]
    ) -> Condition:
        if not isinstance(given, Mapping) or not given:
            raise self.document.unexpected(at, "a condition, {axis: value} or {axis: [value, value]}")
        condition: dict[int, frozenset[int]] = {}
        for name, wanted in given.items():
            if name not in indices:
                raise self.document.error((*at, name), f"'{name}' is no axis{suggestion(name, indices)}")
            number, index = indices[name]
            meant: set[int] = set()
            for one in wanted if isinstance(wanted, list) else [wanted]:
                found = index.positions(self.document.without_unit((*at, name), one, name))
                if not found:
                    place, rows = axes[number].columns.index(name), axes[number].cells
                    listed = ", ".join(str(row[place]) for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
                    problem = f"{dotted((*at, name))}: found {one!r}, expected a value of that axis: {listed}"
                    raise self.document.error((*at, name), problem)
                meant |= found
            condition[number] = condition.get(number, frozenset(meant)) & meant
        return condition
