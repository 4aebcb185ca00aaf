"""The values of an axis as a sweep file gives them: a list, labelled values, or a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from offsim.inputs.document import Document, dotted
from offsim.inputs.errors import Expected, KeyPath
from offsim.inputs.fields import Count, Number, Section
from offsim.inputs.validate import validate

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
            raise Expected(f"a range of at most {MAX_VALUES:,} values", at=("count" if self.count else "step",))
        return self

    @property
    def length(self) -> int:
        if self.step is not None:
            return math.floor((self.end - self.begin) / self.step * (1 + 1e-12)) + 1
        return self.count or 0

    def values(self) -> list[int | float]:
        if self.step is not None:
            return [_rounded(self.begin + number * self.step) for number in range(self.length)]
        spaced = np.geomspace if self.scale == "log" else np.linspace
        return [_rounded(value) for value in spaced(self.begin, self.end, self.length).tolist()]


def _rounded(value: float) -> int | float:
    """Without the last digits, in which steps of 0.1 are not what they look like; whole numbers as such."""
    value = float(f"{value:.12g}")
    return int(value) if value.is_integer() else value


_RANGE_KEYS = {field.alias or name for name, field in _Range.model_fields.items()}


def read_values(document: Document, at: KeyPath, given: Any) -> tuple[list[Any], list[str] | None, list[KeyPath]]:
    """Return an axis's values, their labels where it gives any, and where each is written.

    `given` is what the document has at `at`. Raises InputError where it is no list of values.
    """
    if isinstance(given, Mapping) and given and given.keys() <= _RANGE_KEYS:
        values = validate(document, _Range, data=given, at=at).values()
        return values, None, [at] * len(values)
    labels = None
    if isinstance(given, Mapping) and given.keys() == {"values"}:
        at, given = (*at, "values"), given["values"]
        if isinstance(given, Mapping):
            labels = list(given)
    if not isinstance(given, list) and labels is None:
        raise document.unexpected(at, "a list of values, or {values: ...}, {from:, to:, step:} or {zip: ...}")
    if not given:
        raise document.error(at, f"{dotted(at)}: found an empty axis, expected at least one value")
    if labels is not None:
        return list(given.values()), labels, [(*at, label) for label in labels]
    return list(given), None, [(*at, index) for index in range(len(given))]
