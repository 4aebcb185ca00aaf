"""Options of schedules: checked fields that say which values are worth trying, and what others call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from offsim.inputs.fields import Section


class ScheduleOptions(Section):
    """Options of a schedule; each schedule subclasses it with its own."""


class Option(NamedTuple):
    """An option as it was declared, with what it does not declare filled in."""

    name: str
    default: Any
    column: str
    deepspeed_default: Any
    tries: Sequence[Any] = ()
    deepspeed: str = ""
    deepspeed_values: Mapping[Any, tuple[Sequence[Any], str]] = {}
    fsdp: str = ""
    fsdp_values: Mapping[Any, Any] = {}
    cells: Mapping[str, str] = {}
    word: str = ""

    def deepspeed_value(self, value: Any) -> Any:
        """The value of DeepSpeed's key that stands for one of the option."""
        return next((key for key, (values, _) in self.deepspeed_values.items() if value in values), value)


def option(
    default: Any,
    description: str,
    *,
    tries: Sequence[Any] = (),
    deepspeed: str = "",
    deepspeed_default: Any = None,
    deepspeed_values: Mapping[Any, tuple[Sequence[Any], str]] | None = None,
    fsdp: str = "",
    fsdp_values: Mapping[Any, Any] | None = None,
    column: str = "",
    cells: Mapping[str, str] | None = None,
    word: str = "",
    **bounds: Any,
) -> Any:
    """Declare an option. `bounds` are those of pydantic's Field: ge, gt, le, lt.

    `tries` are the values that `offsim tune` tries. `deepspeed` is its key in ds_config.json by dotted path,
    `deepspeed_default` DeepSpeed's default if that is another; `deepspeed_values` has, where the key's values are not
    the option's, those that each stands for, and why. An import takes the first of them, the option's default where
    there are none. `fsdp` is the fact of FSDP's configuration that says the option, `fsdp_values` its value for each.
    `column` is its column in tables of measured runs if that has another name, `cells` the values that words there
    stand for, `word` what names and rankings of runs call it.
    """
    extra: dict[str, Any] = {"try": [*tries], "column": column, "cells": cells, "word": word, "deepspeed": deepspeed}
    extra |= {"deepspeed_default": deepspeed_default, "deepspeed_values": deepspeed_values}
    extra |= {"fsdp": fsdp, "fsdp_values": fsdp_values}
    given = {key: value for key, value in extra.items() if value not in (None, "", [])}
    return Field(default=default, description=description, json_schema_extra=given, **bounds)


def declared(options: type[BaseModel]) -> list[Option]:
    """The options of a schedule."""
    found = []
    for name, info in options.model_fields.items():
        extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        usual = {"name": name, "default": info.default, "column": name, "deepspeed_default": info.default}
        known = usual | {"tries": extra.get("try", ())} | extra
        found.append(Option(**{field: known[field] for field in Option._fields if field in known}))
    return found


def options_to_try(options: type[BaseModel]) -> dict[str, tuple[Any, ...]]:
    """Option -> the values worth trying, of the options that declare them."""
    return {option.name: tuple(option.tries) for option in declared(options) if option.tries}
