"""The axes of a table of many simulations: which column is meant, what varies, how values are ordered and called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from offsim.views.figure import TEXT_PT, text_width_in

SECTIONS = ("hardware_changes", "scheduler", "training", "model")
"""Sections of a scenario that labels leave out."""


def column_of(table: pd.DataFrame, name: str) -> str:
    """The column that a name means: itself, or the only one that ends in it, as `layers` for `model.layers`.

    A name that no column has is returned as it is.
    """
    ending = [column for column in table.columns if str(column).endswith(f".{name}")]
    return ending[0] if name not in table.columns and len(ending) == 1 else name


def axes_of(table: pd.DataFrame) -> list[str]:
    """The axes' columns. Where joining tables lost their names, those that are dotted as axes are."""
    named = table.attrs.get("axes") or [column for column in table.columns if "." in str(column)]
    return [name for name in named if name in table.columns]


def varied(table: pd.DataFrame, drawn: Sequence[str]) -> list[str]:
    """Axes that take several values at a place of the drawn ones; of those that change together, the first."""
    places = table.groupby(list(dict.fromkeys(drawn)), dropna=False, sort=False)
    found: list[str] = []
    for name in axes_of(table):
        several = name not in drawn and places[name].nunique(dropna=False).max() > 1
        if several and not any(_together(table, name, other) for other in found):
            found.append(name)
    return found


def label(table: pd.DataFrame, name: str, room_in: float) -> str:
    """What to write at an axis: its name without the section, and where there is room those that change with it."""
    axes = axes_of(table)
    more = [other for other in axes if name in axes and other != name and _together(table, name, other)]
    every = ", ".join(short(one) for one in (name, *more))
    wordings = (every, f"{short(name)} and {len(more)} more") if more else ()
    return next((text for text in wordings if text_width_in(text, TEXT_PT) <= room_in), short(name))


def short(name: str) -> str:
    """A dotted name without the section of the scenario; `scheduler.name` is the scheduler."""
    section, _, rest = name.partition(".")
    if name == "scheduler.name":
        return section
    return rest if rest and section in SECTIONS else name


def ordered(values: pd.Series[Any]) -> list[Any]:
    """The values that occur: numbers by size, factors such as x2 by theirs, others in the order first seen."""
    present = list(dict.fromkeys(values[values.notna()].tolist()))
    return present if None in map(_number, present) else sorted(present, key=lambda value: _number(value) or 0.0)


def positions(places: Sequence[Any]) -> list[float]:
    """Where to draw places of an axis: numbers by their value, others one beside the other."""
    numbers = [_number(place) for place in places]
    if None in numbers:
        return [*map(float, range(len(places)))]
    return [number or 0.0 for number in numbers]


def shown(value: Any) -> str:
    """A value as a label."""
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}".replace("e+0", "e").replace("e+", "e")
    return str(value)


def _together(table: pd.DataFrame, one: str, other: str) -> bool:
    """Whether two axes were zipped: each value of either comes with one of the other's."""
    pairs = table[[one, other]].drop_duplicates()
    counts = [len(pairs), pairs[one].nunique(dropna=False), pairs[other].nunique(dropna=False)]
    return len(set(counts)) == 1 and len(pairs) > 1


def _number(value: Any) -> float | None:
    try:
        return float(value[1:] if isinstance(value, str) and value.startswith("x") else value)
    except (TypeError, ValueError):
        return None
