"""Options of schedules: checked fields that say which values are worth trying, and what others call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from offsim.inputs.fields import Section


class ScheduleOptions(Section):
    """Options of a schedule; each schedule subclasses it with its own."""


def option(
    default: Any,
    description: str,
    *,
    tries: Sequence[Any] = (),
    deepspeed: str = "",
    column: str = "",
    cells: Mapping[str, str] | None = None,
    **bounds: Any,
) -> Any:
    """Declare an option. `bounds` are those of pydantic's Field: ge, gt, le, lt.

    `tries` are the values that `offsim tune` tries, `deepspeed` is its key in ds_config.json by dotted path, `column`
    its column in tables of measured runs if that has another name, `cells` the values that words there stand for.
    """
    extra: dict[str, Any] = {"try": list(tries), "deepspeed": deepspeed, "column": column, "cells": dict(cells or {})}
    given = {key: value for key, value in extra.items() if value}
    return Field(default=default, description=description, json_schema_extra=given, **bounds)


def declared(options: type[BaseModel], key: str) -> dict[str, Any]:
    """Option -> what it declares under `try`, `deepspeed`, `column` or `cells`, of the options that do."""
    return {
        name: extra[key]
        for name, info in options.model_fields.items()
        if isinstance(extra := info.json_schema_extra, dict) and key in extra
    }


def options_to_try(options: type[BaseModel]) -> dict[str, tuple[Any, ...]]:
    """Option -> the values worth trying, of the options that declare them."""
    return {name: tuple(values) for name, values in declared(options, "try").items()}
