"""Sections, counts, numbers and flags of all input files.

Stricter than pydantic's defaults about silent mistakes (`true` as the number 1, `nan`), and more lenient about numbers
that some YAML libraries return as text (`1e8`, `100_000_000`).
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    Strict,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from offsim.inputs.errors import Expected
from offsim.inputs.units import WITH_UNIT_SCHEMA, unit_of, without_unit

MAX_COUNT = 10**15
MAX_NUMBER = 1e30
"""Times and rates up to this size multiply and divide without overflow; no machine exceeds it."""


class Section(BaseModel):
    """A group of named values; unknown names, NaN, infinities and numbers of extreme size are errors.

    Numbers may be written with their unit, `48GB`, where the field's name says which one it is in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        for name, given in handler.resolve_ref_schema(schema).get("properties", {}).items():
            about = {key: given[key] for key in ("default", "description", "title") if key in given}
            choices = given.get("anyOf") or [{key: given[key] for key in given.keys() - about.keys()}]
            if cls.takes_unit(name) and any(choice.get("type") in ("integer", "number") for choice in choices):
                given.clear()
                given |= {"anyOf": [*choices, WITH_UNIT_SCHEMA], **about}
        return schema

    @classmethod
    def takes_unit(cls, field: str) -> bool:
        """Whether a field's number may be written with a unit."""
        return unit_of(field) != "1"

    @model_validator(mode="before")
    @classmethod
    def _in_their_units(cls, values: Any) -> Any:
        numbers = {}
        for name, value in values.items() if isinstance(values, Mapping) else ():
            try:
                number = without_unit(str(name), value)
            except Expected as error:
                raise Expected(error.expected, at=(name,)) from None
            if number is not value:
                numbers[name] = number
        return {**values, **numbers} if numbers else values

    @field_validator("*")
    @classmethod
    def _of_ordinary_size(cls, value: Any) -> Any:
        if isinstance(value, float) and value and not 1 / MAX_NUMBER <= abs(value) <= MAX_NUMBER:
            raise Expected(f"a number between {1 / MAX_NUMBER:g} and {MAX_NUMBER:g} in size")
        return value


def section_type(annotation: Any) -> type[BaseModel] | None:
    """Return the section type, possibly optional, in a field's annotation; None if there is none."""
    optional = get_origin(annotation) in (Union, UnionType)
    for choice in get_args(annotation) if optional else (annotation,):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise Expected("a whole number")
    if isinstance(value, Integral):
        return int(value)  # NumPy's integers too: sweeps make them
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = parsed_number(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise Expected("a whole number")


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise Expected("a number")
    if isinstance(value, str) and (value := parsed_number(value)) is None:
        raise Expected("a number")
    return value


def parsed_number(text: str) -> float | None:
    """The number that a text says; None where it says none."""
    try:
        return float(text)
    except ValueError:
        return None


def _in_range(value: int) -> int:
    # Here rather than as `ge` and `le`, which would win over those that a field adds to `Count`
    if value < 1:
        raise Expected("at least 1")
    if value > MAX_COUNT:
        raise Expected(f"at most {MAX_COUNT:g}")
    return value


Count = Annotated[int, BeforeValidator(_whole), AfterValidator(_in_range)]
"""A whole number from 1; `1e8` counts as one, `1.5` and `true` don't."""

Number = Annotated[float, BeforeValidator(_number)]
"""A finite number (in a `Section`); `true` is not one."""

Flag = Annotated[bool, Strict()]
"""`true` or `false` only."""
