"""Found values and their correlations, as the text of a profile's file."""

from __future__ import annotations

import json
from typing import NamedTuple

from offsim.platform.correlations import SECTION, Triangle
from offsim.platform.hardware import Source
from offsim.platform.profiles import unit_of

CORRELATIONS = f"{SECTION}:  # of the logarithms of values that were fitted together: of each with those above"
DIGITS = 3
"""Of correlations, behind the point: where values make up for one another, what is left is small."""


class Found(NamedTuple):
    """One value of the new profile."""

    value: float
    low: float
    high: float
    source: Source
    error: str
    note: str
    at_least: bool = False


def entry(field: str, found: Found) -> str:
    """A profile's entry of a value."""
    texts = {"error": found.error, "note": found.note}
    return (
        f"{{value: {found.value:.4g}, low: {found.low:.4g}, high: {found.high:.4g}, unit: {_unit(field)}, "
        f"source: {found.source}{''.join(f', {name}: {quoted(text)}' for name, text in texts.items() if text)}}}"
    )


def correlation_rows(triangle: Triangle) -> list[str]:
    """A profile's rows of correlations, those of a value on one line; none for a single value."""
    width = max(map(len, triangle), default=0) + 1
    return [
        f"  {name + ':':<{width}} [{', '.join(f'{number:z{DIGITS + 3}.{DIGITS}f}' for number in row)}]"
        for name, row in triangle.items()
        if len(triangle) > 1
    ]


def quoted(text: str) -> str:
    """A text as YAML's double quotes give it, which take all of JSON's."""
    return json.dumps(text)


def _unit(field: str) -> str:
    unit = unit_of(field)
    return '"1"' if unit == "1" else unit
