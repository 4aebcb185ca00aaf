"""What of a scenario may be an axis, and which values it takes. Checked where they are written, before any point is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from offsim.inputs.errors import InputError, KeyPath, nearest, suggestion
from offsim.inputs.fields import Section, section_type
from offsim.inputs.packaged import is_path
from offsim.inputs.yaml_input import Document, Mark, dotted, validate
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import factor_of, load_profile
from offsim.scenario import Model, Training
from offsim.schedulers.registry import BUILT_IN, find_scheduler

_HARDWARE = {
    name: model for name, info in HardwareProfile.model_fields.items() if (model := section_type(info.annotation))
}
_SECTIONS: dict[str, type[BaseModel]] = {"model": Model, "training": Training}


def field_names(schedulers: Collection[str]) -> list[str]:
    """Dotted names of everything that may be an axis of a sweep under these schedulers."""
    names = ["hardware", "hardware_changes", "scheduler", "scheduler.name"]
    names += [f"scheduler.{option}" for name in schedulers for option in find_scheduler(name).Options.model_fields]
    for section, model in _SECTIONS.items():
        names += [section, *(f"{section}.{key}" for key in model.model_fields)]
    for section, model in _HARDWARE.items():
        start = f"hardware_changes.{section}"
        names += [start, *(f"{start}.{key}" for key in model.model_fields)]
    return list(dict.fromkeys(names))


def check_field(document: Document, at: KeyPath, name: str, schedulers: Collection[str]) -> None:
    """Raise InputError unless `name`, written at `at`, may be an axis."""
    known = field_names(schedulers)
    if name in known:
        return
    elsewhere = [other for other in BUILT_IN if name in field_names([other])]
    if elsewhere:
        problem = f"'{name}' is no option of {' or '.join(schedulers)}, only of {' and '.join(elsewhere)}"
        raise document.error(at, problem)
    section, _, key = name.rpartition(".")
    if beside := [other.rpartition(".")[2] for other in known if section and other.rpartition(".")[0] == section]:
        raise document.error(at, f"unknown axis '{name}': unknown key '{key}' in {section}{suggestion(key, beside)}")
    near = nearest(name, known)
    hint = f"; did you mean '{near}'?" if near else "; expected a scenario's field, such as scheduler.update_stride"
    raise document.error(at, f"unknown axis '{name}'{hint}")


def knowing(name: str, schedulers: Collection[str]) -> list[str]:
    """Those of the schedulers to which the axis `name` applies: to all, but for an option that some don't have."""
    section, _, option = name.partition(".")
    if section != "scheduler" or option in ("", "name"):
        return list(schedulers)
    return [scheduler for scheduler in schedulers if option in find_scheduler(scheduler).Options.model_fields]


def check_value(name: str, value: Any, mark: Mark, schedulers: Collection[str], folder: Path) -> Any:
    """Return a value of the axis `name` as points take it; InputError at `mark` where it can't be one.

    Checks the value by itself: whether it goes with the others is seen at each point. Paths of profiles are relative
    to `folder`.
    """
    path = tuple(name.split("."))
    data: Any = value
    for part in reversed(path):
        data = {part: data}
    document = Document(data, {path[:end]: mark for end in range(len(path) + 1)})
    if name == "hardware":
        return _profile(document, value, folder)
    if path[0] == "hardware_changes":
        _check_changes(document, path, value)
    elif name == "scheduler":
        _check_scheduler(document, value)
    elif name == "scheduler.name":
        _known_scheduler(document, value)
    elif path[0] == "scheduler":
        _check_single(document, path, find_scheduler(knowing(name, schedulers)[0]).Options, value)
    elif len(path) == 1:
        validate(document, _SECTIONS[name], data=_section(document, path, value), at=path)
    else:
        _check_single(document, path, _SECTIONS[path[0]], value)
    return value


def _check_single(document: Document, path: KeyPath, model: type[BaseModel], value: Any) -> None:
    """Check one field of a model by itself, without what the other fields have to do with it."""
    name = str(path[-1])
    validate(document, _single(model, name), data={name: value}, at=path[:-1])


@cache
def _single(model: type[BaseModel], name: str) -> type[BaseModel]:
    info = model.model_fields[name]
    fields: dict[str, Any] = {name: (info.annotation, info)}
    return create_model("_Single", __base__=Section, **fields)


def _section(document: Document, path: KeyPath, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise document.unexpected(path, "a section of keys")
    return value


def _profile(document: Document, value: Any, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise document.unexpected(("hardware",), "the name or path of a hardware profile")
    try:
        load_profile(value, folder)
    except InputError as error:
        raise error if error.where else document.error(("hardware",), error.problem) from None
    beside = folder / value
    return str(beside.resolve()) if is_path(value) and beside.exists() else value


def _known_scheduler(document: Document, name: Any) -> None:
    if not isinstance(name, str):
        raise document.unexpected(("scheduler", "name"), "the name of a scheduler")
    try:
        find_scheduler(name)
    except InputError as error:
        raise document.error(("scheduler", "name"), error.problem) from error.__cause__


def _check_scheduler(document: Document, value: Any) -> None:
    section = dict(_section(document, ("scheduler",), value))
    if "name" not in section:
        raise document.error(("scheduler",), "missing key 'scheduler.name'")
    name = section.pop("name")
    _known_scheduler(document, name)
    validate(document, find_scheduler(name).Options, data=section, at=("scheduler",))


def _check_changes(document: Document, path: KeyPath, value: Any) -> None:
    """Check hardware changes down to their single values; that the path itself exists is known."""
    if len(path) < 3:
        known = list(_HARDWARE) if len(path) == 1 else list(_HARDWARE[str(path[1])].model_fields)
        for key, inner in _section(document, path, value).items():
            if key not in known:
                problem = f"unknown key '{key}' in {dotted(path)}{suggestion(key, known)}"
                raise document.error(path, problem)
            _check_changes(document, (*path, key), inner)
    elif not isinstance(value, str):
        _check_single(document, path, _HARDWARE[str(path[1])], value)
    elif factor_of(value) is None:
        raise document.unexpected(path, "a number, or a factor such as x2")
