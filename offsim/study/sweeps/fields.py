"""What of a scenario may be an axis, and which values it takes. Checked where they are written, before any point is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from offsim.inputs.document import Document, Mark, dotted
from offsim.inputs.errors import InputError, KeyPath, nearest, suggestion
from offsim.inputs.fields import Section
from offsim.inputs.packaged import is_path
from offsim.inputs.validate import validate
from offsim.platform.changes import factor_of, number_of
from offsim.platform.hardware import HardwareProfile
from offsim.platform.parts import named_part
from offsim.platform.profiles import load_profile
from offsim.scenario import Model, Scenario, SchedulerChoice, Training
from offsim.schedulers.registry import BUILT_IN, find_scheduler
from offsim.states.placement import Placement

Fields = dict[str, tuple[type[BaseModel], str]]
"""Dotted name of an axis -> the model that checks its values, and the field of that model."""


PRICE = "price_per_gpu_hour"


def axis_fields(schedulers: Iterable[str], profiles: Iterable[HardwareProfile]) -> Fields:
    """Everything that may be an axis of a sweep under these schedulers on these profiles."""
    sections: list[tuple[str, type[BaseModel]]] = [("scheduler", find_scheduler(name).Options) for name in schedulers]
    sections += [("scheduler", SchedulerChoice), ("model", Model), ("training", Training), ("placement", Placement)]
    sections += [
        (f"hardware_changes.{name}", type(values))
        for profile in profiles
        for name, values in profile.sections().items()
    ]
    fields: Fields = {name: (Scenario, name) for name in ("hardware", "hardware_changes", PRICE)}
    for section, model in sections:
        fields[section] = (Scenario, section)
        fields |= {f"{section}.{key}": (model, key) for key in model.model_fields}
    return fields


def has_field(scheduler: str, name: str) -> bool:
    """Whether an axis applies under a scheduler: all do, but for options of others."""
    section, _, option = name.partition(".")
    return section != "scheduler" or option in ("", "name") or option in find_scheduler(scheduler).Options.model_fields


def check_name(document: Document, at: KeyPath, name: str, fields: Fields, schedulers: Iterable[str]) -> None:
    """Raise InputError unless `name`, written at `at`, is one of `fields`, which are those of `schedulers`."""
    if name in fields:
        return
    elsewhere = [other for other in BUILT_IN if name.startswith("scheduler.") and has_field(other, name)]
    if elsewhere:
        problem = f"'{name}' is no option of {' or '.join(schedulers)}, only of {' and '.join(elsewhere)}"
        raise document.error(at, problem)
    section, _, key = name.rpartition(".")
    if siblings := [other.rpartition(".")[2] for other in fields if section and other.rpartition(".")[0] == section]:
        raise document.error(at, f"unknown key '{key}' in {section}{suggestion(key, siblings)}")
    near = nearest(name, fields)
    hint = f"; did you mean '{near}'?" if near else "; expected a scenario's field, such as training.micro_batch"
    raise document.error(at, f"unknown axis '{name}'{hint}")


def check_value(name: str, value: Any, mark: Mark, fields: Fields, folder: Path) -> Any:
    """Return a value of the axis `name` as points take it; InputError at `mark` where it can't be one.

    Checks the value by itself: whether it goes with the others is seen at each point. Paths of profiles are relative
    to `folder`.
    """
    path = tuple(name.split("."))
    data: Any = value
    for part in reversed(path):
        data = {part: data}
    document = Document(data, {path[:end]: mark for end in range(len(path) + 1)})
    if path[0] == "hardware_changes":
        _check_change(document, path, value, fields)
        return value if len(path) < 3 or factor_of(value) else document.without_unit(path, value)
    model, field = fields[name]
    validate(document, field_model(model, field), data={field: value}, at=path[:-1])
    if name in ("scheduler", "scheduler.name"):
        _check_scheduler(document, path, value)
    return _profile(document, value, folder) if name == "hardware" else document.without_unit(path, value)


@cache
def field_model(model: type[BaseModel], field: str) -> type[BaseModel]:
    """One field of a model by itself, without what the others have to do with it."""
    info = model.model_fields[field]
    fields: dict[str, Any] = {field: (info.annotation, info)}
    return create_model("_Single", __base__=Section, **fields)


def _check_change(document: Document, path: KeyPath, value: Any, fields: Fields) -> None:
    """Check hardware changes down to their single values."""
    if len(path) == 2 and isinstance(value, str):
        named_part(document, path, value)
    elif len(path) < 3:
        if not isinstance(value, Mapping):
            raise document.unexpected(path, "a section of keys")
        for key, inner in value.items():
            check_name(document, path, dotted((*path, key)), fields, ())
            _check_change(document, (*path, key), inner, fields)
    elif factor_of(value) is None:
        model, field = fields[dotted(path)]
        if isinstance(value, str):
            value = number_of(document, path, value)
        validate(document, field_model(model, field), data={field: value}, at=path[:-1])


def _check_scheduler(document: Document, path: KeyPath, value: str | Mapping[str, Any]) -> None:
    name = value if isinstance(value, str) else value["name"]
    try:
        options = find_scheduler(name).Options
    except InputError as error:
        raise document.error(path, error.problem) from error.__cause__
    if isinstance(value, Mapping):
        validate(document, options, data={key: value[key] for key in value if key != "name"}, at=path)


def _profile(document: Document, value: str, folder: Path) -> str:
    try:
        load_profile(value, folder)
    except InputError as error:
        raise error if error.where else document.error(("hardware",), error.problem) from None
    beside = folder / value
    return str(beside.resolve()) if is_path(value) and beside.exists() else value
