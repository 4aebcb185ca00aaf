"""Numbers written with their unit: `48GB`, `64GiB`, `25GB/s`, `150us`. A field's name says which unit it is in."""

from __future__ import annotations

import re
from typing import Any

from offsim.inputs.errors import Expected

_UNITS = {
    "_bytes_per_s": ("B/s", "bytes per second, such as 25GB/s"),
    "_params_per_s": ("params/s", "parameters per second, such as 5Gparams/s"),
    "_flops_per_s": ("FLOP/s", "operations per second, such as 312TFLOP/s"),
    "_bytes": ("B", "bytes, such as 48GB or 64GiB"),
    "_s": ("s", "seconds, such as 150us"),
}
_ALIKE = {"b": ("B", 8), "b/s": ("B/s", 8), "FLOPS": ("FLOP/s", 1)}
"""Other units -> the unit that offsim counts in, and how many of them make one of it. Networks are sold by bits."""

_WITH_UNIT = re.compile(r"([-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]{1,2})?) ?([a-zA-Zµμ][a-zA-Zµμ/]{0,15})")

WITH_UNIT_SCHEMA = {"type": "string", "pattern": f"^{_WITH_UNIT.pattern}$"}
"""JSON Schema of such text."""


def unit_of(field: str) -> str:
    """Return the unit that a field's name says: `hbm_bytes_per_s` is in B/s; 1 where it says none."""
    return next((unit for suffix, (unit, _) in _UNITS.items() if field.endswith(suffix)), "1")


def without_unit(field: str, value: Any) -> Any:
    """Return text such as `48GB` as the number in the field's unit; any other value as it is.

    Raises Expected where the unit is of another dimension.
    """
    if not isinstance(value, str) or len(value) > 60 or not (match := _WITH_UNIT.fullmatch(value)):
        return value
    wanted, meaning = next((known for suffix, known in _UNITS.items() if field.endswith(suffix)), ("", ""))
    if not wanted:
        return value  # text, or a number that has no unit: the field's own check says so

    from quantiphy import Quantity  # here, as few inputs need it

    one = Quantity(f"1{match[2]}", binary=True)
    unit, parts = _ALIKE.get(one.units, (one.units, 1))
    if unit != wanted:
        raise Expected(meaning)
    return float(match[1].replace("_", "")) * float(one) / parts
