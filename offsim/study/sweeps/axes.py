"""The points of a sweep: every combination of its axes, listed one by one or only counted.

An axis may depend on those before it (`when`), and conditions drop combinations (`skip`). Both are conjunctions: for
one or more axes, the positions that are meant. On an axis that does not apply, a point has no position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offsim.inputs.errors import InputError

Condition = Mapping[int, frozenset[int]]
"""Number of an axis -> positions on it; holds where the point is at one of them on each of these axes."""

Position = tuple[int | None, ...]
"""Where a point is on each axis; None where the axis does not apply."""

Cell = str | int | float | bool | None
"""What a table shows of a value."""

MAX_STATES = 100_000


@dataclass(frozen=True)
class Axis:
    """Columns that change together: one, or several that are zipped. `values` and `cells` have a tuple per position."""

    columns: tuple[str, ...]
    values: Sequence[tuple[Any, ...]]
    cells: Sequence[tuple[Cell, ...]]
    when: Condition = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)


def positions(axes: Sequence[Axis], skip: Sequence[Condition] = ()) -> Iterator[Position]:
    """Every point in order, the last axis changing fastest; one after another, so that no list of them is needed."""

    def extend(point: Position) -> Iterator[Position]:
        if len(point) == len(axes):
            if not any(_holds(condition, point) for condition in skip):
                yield point
            return
        axis = axes[len(point)]
        for position in range(len(axis)) if _holds(axis.when, point) else (None,):
            yield from extend((*point, position))

    yield from extend(())


def _holds(condition: Condition, point: Position) -> bool:
    return all(point[axis] in meant for axis, meant in condition.items())


def count_points(axes: Sequence[Axis], skip: Sequence[Condition] = ()) -> int:
    """As many as `positions` lists, without listing them.

    Axis by axis, points are told apart by nothing but which conditions they fail already.
    """
    conditions = [axis.when for axis in axes] + list(skip)
    counts: dict[frozenset[int], int] = {frozenset(): 1}
    for number, axis in enumerate(axes):
        naming = [index for index, condition in enumerate(conditions) if number in condition]
        alike: dict[frozenset[int], int] = {}
        for position in range(len(axis)) if naming else ():
            failed = frozenset(index for index in naming if position not in conditions[index][number])
            alike[failed] = alike.get(failed, 0) + 1
        grown: dict[frozenset[int], int] = {}
        for failed, count in counts.items():
            applies = number not in failed
            for more, times in (alike or {frozenset(): len(axis)}).items() if applies else ((frozenset(naming), 1),):
                state = (failed | more) - {number}
                grown[state] = grown.get(state, 0) + count * times
        if len(grown) > MAX_STATES:
            raise InputError("the conditions of 'when' and 'skip' tie too many axes together, expected fewer")
        counts = grown
    dropping = frozenset(range(len(axes), len(conditions)))
    return sum(count for failed, count in counts.items() if dropping <= failed)
