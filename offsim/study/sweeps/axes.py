"""The axes of a sweep and its points: every combination of their values but those that are left out."""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeGuard

from offsim.inputs.document import flat
from offsim.inputs.fields import MAX_NUMBER
from offsim.scenario import Scenario

Condition = Mapping[int, frozenset[int]]
"""Number of an axis -> positions on it; holds where the point is at one of them on each of these axes."""

Position = tuple[int | None, ...]
"""Where a point is on each axis; None where the axis does not apply."""

Cell = str | int | float | bool | None
"""What a table shows of a value."""


@dataclass(frozen=True)
class Axis:
    """Columns that change together: one, or several that are zipped. `values` and `cells` have a tuple per position.

    An option of some schedulers is an axis under these `schedulers` only; None: under all.
    """

    columns: tuple[str, ...]
    values: Sequence[tuple[Any, ...]]
    cells: Sequence[tuple[Cell, ...]]
    schedulers: frozenset[str] | None = None


@dataclass(frozen=True)
class Sweep:
    """A checked sweep. The first axis is that of the scenarios to start from."""

    bases: tuple[Scenario, ...]
    axes: tuple[Axis, ...]
    skip: tuple[Condition, ...]
    content: dict[str, Any]
    """What was written, as plain values: `base`, `axes`, `skip`."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns that say where a point is: `scenario`, then those of the axes."""
        return [column for axis in self.axes for column in axis.columns]

    def positions(self) -> Iterator[Position]:
        """Every point in order, the last axis changing fastest, one after another: no list of them is needed."""
        deciding, names = self._schedulers()
        skipping = self._conditions()
        for whole in product(*(range(len(axis.values)) for axis in self.axes)):
            name = names[whole[deciding]]
            applies = [axis.schedulers is None or name in axis.schedulers for axis in self.axes]
            if any(at and not applied for at, applied in zip(whole, applies, strict=True)):
                continue  # there as the first position of the axis that does not apply
            point = tuple(at if applied else None for at, applied in zip(whole, applies, strict=True))
            conditions = (one for axis, held in skipping for one in held.get(point[axis], ()))
            if not any(all(point[axis] in meant for axis, meant in condition.items()) for condition in conditions):
                yield point

    def _conditions(self) -> list[tuple[int, dict[int | None, list[Condition]]]]:
        """Axis -> position -> the conditions that may hold there, each under the axis that it says most about."""
        found: dict[int, dict[int | None, list[Condition]]] = {}
        for condition in self.skip:
            narrowest = min(condition, key=lambda axis: len(condition[axis]) / len(self.axes[axis].values))
            for at in condition[narrowest]:
                found.setdefault(narrowest, {}).setdefault(at, []).append(condition)
        return list(found.items())

    def _schedulers(self) -> tuple[int, list[str]]:
        """The axis that decides on the scheduler, and the scheduler at each of its positions."""
        for column in ("scheduler.name", "scheduler"):
            for number, axis in enumerate(self.axes):
                if column in axis.columns:
                    values = [row[axis.columns.index(column)] for row in axis.values]
                    return number, [value if isinstance(value, str) else value["name"] for value in values]
        return 0, [base.scheduler.name for base in self.bases]

    def cells(self, position: Position) -> dict[str, Cell]:
        """Column -> what the table shows of a point."""
        shown: dict[str, Cell] = {}
        for axis, at in zip(self.axes, position, strict=True):
            row = axis.cells[at] if at is not None else (None,) * len(axis.columns)
            shown.update(zip(axis.columns, row, strict=True))
        return shown


def cells_of(values: Sequence[Any]) -> list[Cell]:
    """The cell of each value. Sections are labelled by the keys in which they differ: `layers=40 hidden=5120`."""
    flats = [flat(value) if isinstance(value, Mapping) else {} for value in values]
    alike = {key for one in flats for key in one if all(key in other and other[key] == one[key] for other in flats)}
    return [
        " ".join(f"{key}={_text(one[key])}" for key in one if key not in alike or len(alike) == len(one))
        if one
        else (json.dumps(value) if isinstance(value, list) else value)
        for one, value in zip(flats, values, strict=True)
    ]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


class CellIndex:
    """Finds the positions of a column whose cells a condition's value means.

    Numbers of a range need not be spelled to the last digit.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._numbers = sorted((float(cell), at) for at, cell in enumerate(cells) if _is_number(cell))
        self._others: dict[tuple[type, Any], set[int]] = {}
        for at, cell in enumerate(cells):
            if not _is_number(cell):
                self._others.setdefault((type(cell), cell), set()).add(at)

    def positions(self, wanted: Any) -> set[int]:
        """Positions that a value means; none where it is no value of the column."""
        if not _is_number(wanted):
            return self._others.get((type(wanted), wanted), set()) if isinstance(wanted, Hashable) else set()
        if not abs(wanted) <= MAX_NUMBER:  # an infinity, nan, or beyond what any value may be
            return set()
        low, high = sorted((wanted * (1 - _CLOSE), wanted * (1 + _CLOSE)))
        begin, end = bisect_left(self._numbers, (low, -1)), bisect_right(self._numbers, (high, sys.maxsize))
        return {at for _, at in self._numbers[begin:end]}


_CLOSE = 1e-9


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
