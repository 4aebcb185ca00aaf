"""What tables show of an axis's values: scalars as they are, whole sections by what tells them apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from offsim.study.sweeps.axes import Cell


def cells_of(values: Sequence[Any]) -> list[Cell]:
    """The cell of each value. Sections are labelled by the keys in which they differ: `layers=40 hidden=5120`."""
    flat = [_flat(value) if isinstance(value, Mapping) else {} for value in values]
    alike = {key for one in flat for key in one if all(key in other and other[key] == one[key] for other in flat)}
    return [
        (" ".join(f"{key}={_text(one[key])}" for key in one if key not in alike) or _spelled(one)) if one else value
        for one, value in zip(flat, values, strict=True)
    ]


def same_cell(cell: Cell, wanted: Any) -> bool:
    """Whether a condition's value means this cell; numbers of a range need not be spelled to the last digit."""
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (cell, wanted)]
    if all(numbers):
        return math.isclose(float(str(cell)), float(wanted), rel_tol=1e-9)
    return type(cell) is type(wanted) and cell == wanted


def _flat(section: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= _flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return found


def _spelled(flat: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in flat.items())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
