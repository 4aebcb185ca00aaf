"""Correlations of a profile's values: how far the errors of their logarithms go together.

    correlations:                    # of each value with those above it, in their order
      gpu.matrix_flops_per_s: []
      gpu.kernel_latency_s: [0.13]
      gpu.hbm_bytes_per_s: [-0.12, 0.05]

Values that were fitted together make up for one another: what runs tell is more of what they do together than of each.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from operator import mul
from typing import Annotated

from pydantic import Field

from offsim.inputs.errors import suggestion
from offsim.inputs.fields import Number
from offsim.inputs.yaml_input import Document, dotted

Correlation = Annotated[Number, Field(ge=-1, le=1)]
Triangle = Mapping[str, Sequence[float]]
"""Value -> its correlation with each value before it."""
Pairs = dict[tuple[str, str], float]
"""Two values, in alphabetical order, -> their correlation; pairs that are not in it are independent."""

SECTION = "correlations"
_ROUNDING = 0.005
"""How far off two digits may be."""


def pairs_of(triangle: Triangle) -> Pairs:
    """The correlations by pair."""
    names = list(triangle)
    return {
        (min(name, other), max(name, other)): float(number)
        for name, row in triangle.items()
        for other, number in zip(names, row, strict=False)
    }


def without(pairs: Mapping[tuple[str, str], float], changed: Collection[str]) -> Pairs:
    """The correlations among values that are not `changed`."""
    return {pair: number for pair, number in pairs.items() if not set(pair) & set(changed)}


def laid_over(below: Pairs, document: Document, fields: Collection[str], uncertain: Collection[str]) -> Pairs:
    """Correlations of a profile's file, in place of those that it inherits.

    `fields` are all that a profile may have, `uncertain` those that have an interval. Raises InputError, with the line,
    for a row that is not as long as it should be, other values, and what no errors can be correlated like.
    """
    triangle: Triangle = document.data.get(SECTION, {})
    for above, (name, row) in enumerate(triangle.items()):
        at = (SECTION, name)
        if name not in fields:
            raise document.error(at, f"unknown value '{name}' in {SECTION}{suggestion(name, fields)}")
        if name not in uncertain:
            problem = "found a value without low and high, expected one with an interval"
            raise document.error(at, f"{dotted(at)}: {problem}")
        if len(row) != above:
            problem = f"found {len(row)} number{'s' * (len(row) != 1)}, expected {above}, one for each value above"
            raise document.error(at, f"{dotted(at)}: {problem}")
    pairs = below | pairs_of(triangle)
    if triangle and not _possible(pairs):
        raise document.error((SECTION,), f"{SECTION}: found numbers that contradict one another")
    return pairs


def _possible(pairs: Pairs) -> bool:
    """Whether no combination of values has a negative variance, but for what rounding makes.

    That is whether Cholesky's decomposition can be made. NumPy's would take longer to load than a simulation does.
    """
    names = sorted({name for pair in pairs for name in pair})
    variance = 1 + _ROUNDING * len(names)
    rows: list[list[float]] = []
    for name in names:
        row: list[float] = []
        for other, before in zip(names, rows, strict=False):
            number = pairs.get((other, name), 0.0)
            row.append((number - sum(map(mul, row, before))) / before[-1])
        left = variance - sum(map(mul, row, row))
        if left <= 0:
            return False
        rows.append([*row, math.sqrt(left)])
    return True
