"""The values of an axis as a sweep file gives them: a list, labelled values, or a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, model_validator

from offsim.inputs.errors import Expected, KeyPath
from offsim.inputs.fields import Count, Number, Section
from offsim.inputs.yaml_input import Document, validate

MAX_VALUES = 100_000


class _Range(Section):
    """Evenly spaced values, or with `scale: log` values of even ratio."""

    begin: Number = Field(alias="from")
    end: Number = Field(alias="to")
    step: Number | None = None
    count: Count | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _ends(self) -> _Range:
        if (self.step is None) == (self.count is None):
            raise Expected("either step or count beside from and to")
        if self.scale == "log":
            if self.count is None:
                raise Expected("count, not step, where scale is log", at=("step",))
            for name, value in (("from", self.begin), ("to", self.end)):
                if value <= 0:
                    raise Expected("more than 0 where scale is log", at=(name,))
        if self.step is not None and (self.step == 0 or (self.end - self.begin) / self.step < 0):
            raise Expected(f"a step that leads from {self.begin:g} to {self.end:g}", at=("step",))
        if self.length > MAX_VALUES:
            at = "step" if self.count is None else "count"
            raise Expected(f"a range of at most {MAX_VALUES:,} values", at=(at,))
        return self

    @property
    def length(self) -> int:
        if self.step is None:
            return self.count or 0
        return math.floor((_exact(self.end) - _exact(self.begin)) / _exact(self.step)) + 1

    def values(self) -> list[Any]:
        if self.step is not None:
            return [_plain(_exact(self.begin) + n * _exact(self.step)) for n in range(self.length)]
        if self.length == 1:
            return [_plain(_exact(self.begin))]
        shares = [n / (self.length - 1) for n in range(self.length)]
        if self.scale == "log":
            ratio = math.log(self.end / self.begin)
            spaced = [self.begin * math.exp(share * ratio) for share in shares]
        else:
            spaced = [self.begin + share * (self.end - self.begin) for share in shares]
        return [_plain(Decimal(f"{value:.12g}")) for value in spaced]


def _exact(number: float) -> Decimal:
    """A number as it was written: three steps of 0.1 are 0.3."""
    return Decimal(repr(number))


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)


_RANGE_KEYS = {field.alias or name for name, field in _Range.model_fields.items()}


def read_values(document: Document, at: KeyPath, given: Any) -> tuple[list[Any], list[str] | None, list[KeyPath]]:
    """Return an axis's values, their labels where it gives any, and where each is written.

    `given` is what the document has at `at`, without `when`. Raises InputError where it is no list of values.
    """
    if isinstance(given, Mapping) and given.keys() == {"values"}:
        at, given = (*at, "values"), given["values"]
        if isinstance(given, Mapping):
            _require(document, at, len(given))
            return list(given.values()), list(given), [(*at, label) for label in given]
    if isinstance(given, Mapping) and given and given.keys() <= _RANGE_KEYS:
        values = validate(document, _Range, data=given, at=at).values()
        return values, None, [at] * len(values)
    if not isinstance(given, list):
        raise document.unexpected(at, "a list of values, or {values: ...}, {from:, to:, step:} or {zip: ...}")
    _require(document, at, len(given))
    return list(given), None, [(*at, index) for index in range(len(given))]


def _require(document: Document, at: KeyPath, length: int) -> None:
    if not length:
        raise document.error(at, f"{'.'.join(map(str, at))}: found an empty axis, expected at least one value")
