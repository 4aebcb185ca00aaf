"""Validation of documents against models: pydantic's errors as one sentence with file, line and key."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails

from offsim.inputs.document import Document, dotted
from offsim.inputs.errors import Expected, InputError, KeyPath, UnknownKey, suggestion
from offsim.inputs.fields import section_type

# pydantic's error types, or their first words -> what to tell the user was expected; {} come from the error's context
_EXPECTED = {
    "int_parsing_size": "a number of ordinary size",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "list": "a list",
    "model": "a section of keys",
    "dict": "a section of keys",
}

_FOLLOWS = "default_factory_not_called"
"""A default that another key gives, which is a problem itself."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Problem(NamedTuple):
    path: KeyPath
    text: str
    missing: str = ""
    """The key that is missing."""


def validate(document: Document, model: type[ModelT], data: Any = None, at: KeyPath = ()) -> ModelT:
    """Build `model` from the document, or from `data`, the part of it at the path `at`.

    Raises InputError for the first problem by line, or for what is wrong with the model itself. Missing keys come last,
    because a misspelt key is missing too, and all at once.
    """
    try:
        return model.model_validate(document.data if data is None else data)
    except PydanticUserError as error:  # an author's options, of a type that pydantic does not know
        raise InputError(error.message.partition("\n")[0], f"{model.__module__}.{model.__qualname__}") from error
    except ValidationError as error:
        found = [each for each in error.errors(include_url=False) if each["type"] != _FOLLOWS]
        problems = [_problem(document, model, details, at) for details in found]
    first = min(problems, key=lambda problem: (bool(problem.missing), document.mark(problem.path).line))
    if first.missing and len(problems) > 1:
        raise document.error(
            first.path, f"missing keys: {', '.join(dict.fromkeys(problem.missing for problem in problems))}"
        )
    raise document.error(first.path, first.text)


def _problem(document: Document, model: type[BaseModel], details: ErrorDetails, at: KeyPath) -> _Problem:
    """Turn one of pydantic's errors into a path and a sentence."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("missing", "extra_forbidden"):
        return _problem_of_keys(model, details, at)
    path = _existing(document.data, at + details["loc"])
    cause = context.get("error")
    if isinstance(cause, UnknownKey):
        text = f"unknown key '{cause.key}' in {dotted(path)}{suggestion(cause.key, cause.known)}"
        return _Problem((*path, cause.key), text)
    if isinstance(cause, Expected):
        path, expected = path + cause.at, cause.expected
        if _existing(document.data, path) != path:  # a default that does not go with what is given
            return _Problem(path, f"{dotted(path)}: expected {expected}")
    elif template := _EXPECTED.get(kind) or _EXPECTED.get(kind.split("_")[0]):
        expected = template.format(**context)
    else:
        return _Problem(path, f"{dotted(path)}: found {document.found(path)}: {cause or details['msg']}")
    return _Problem(path, f"{dotted(path)}: found {document.found(path)}, expected {expected}")


def _problem_of_keys(model: type[BaseModel], details: ErrorDetails, at: KeyPath) -> _Problem:
    """The problem of a missing or an unknown key in the section at `at`."""
    *inside, name = details["loc"]
    section = (*at, *inside)
    fields = _fields(model, tuple(inside))
    if details["type"] == "missing":
        meaning = f" ({fields[str(name)]})" if fields.get(str(name)) else ""
        missing = dotted((*section, name))
        return _Problem(section, f"missing key '{missing}'{meaning}", missing)
    place = f" in {dotted(section)}" if section else ""
    return _Problem((*section, name), f"unknown key '{name}'{place}{suggestion(str(name), fields)}")


def _existing(data: Any, path: KeyPath) -> KeyPath:
    """The part of the path that exists in the data: pydantic adds the names of a union's branches."""
    for end, part in enumerate(path):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return path[:end]
    return path


def _fields(model: type[BaseModel], path: KeyPath) -> dict[str, str]:
    """Return name -> description of the valid keys of the section at `path` of `model`."""
    for part in path:
        known = model.model_fields.get(str(part))
        section = section_type(known.annotation) if known else None
        if section is None:
            return {}
        model = section
    return {name: info.description or "" for name, info in model.model_fields.items() if not info.exclude}
