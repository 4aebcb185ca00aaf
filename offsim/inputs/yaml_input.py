"""Reading YAML so that every complaint can name the file and the line.

Files are small and written by people, so the accepted language is small too: one document, one mapping at the
top, no tags, no aliases (hence no alias bombs), no duplicate keys, bounded size and depth. Numbers follow
YAML 1.2, in which `1e8` is a number and `010` is ten; `yes`, `no`, `on` and `off` are booleans, as PyYAML has it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from offsim.inputs.errors import Expected, InputError, KeyPath, nearest, suggestion
from offsim.inputs.fields import section_type

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
MAX_DIGITS = 30

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*")
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_JSON_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?://|#)[^\n]*|/\*.*?\*/', re.DOTALL)
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None}
_WORDS |= dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)

# pydantic's error types -> what to tell the user was expected; {} come from the error's context
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a number of ordinary size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "path_type": "a path",
    "list_type": "a list",
    "model_type": "a section of keys",
    "dict_type": "a section of keys",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
}

ModelT = TypeVar("ModelT", bound=BaseModel)


class Mark(NamedTuple):
    """Where a value was written."""

    origin: str
    line: int  # 0 where the origin has no lines, as a command-line override
    text: str  # a scalar as written, to quote it in messages; empty for sections and lists

    @property
    def where(self) -> str:
        """`file:line`, or the override."""
        return f"{self.origin}:{self.line}" if self.line else self.origin


@dataclass(frozen=True, eq=False)
class Document:
    """Input values and where each was written. Values given from Python have no marks."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        # where its values were written does not make two scenarios differ
        return isinstance(other, Document)

    def mark(self, path: KeyPath) -> Mark:
        """Return the mark of `path`, or of the closest section around it that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return Mark("", 0, "")

    def found(self, path: KeyPath) -> str:
        """Return how to quote the value at `path`: as written where that is known."""
        value: Any = self.data
        for part in path:
            value = value[part]
        text = self.marks[path].text if path in self.marks else ""
        return _shown(value, text)

    def error(self, path: KeyPath, problem: str) -> InputError:
        """Return the error to raise about what is written at `path`."""
        return InputError(problem, self.mark(path).where)

    def unexpected(self, path: KeyPath, expected: str) -> InputError:
        """Return the error to raise when the value at `path` is not what is expected."""
        return self.error(path, f"{dotted(path)}: found {self.found(path)}, expected {expected}")


def dotted(path: KeyPath) -> str:
    """Return a key path as messages and overrides write it: `scheduler.update_stride`."""
    return ".".join(map(str, path))


def read_yaml(path: Path) -> Document:
    """Read a YAML file; raise InputError, with the line where there is one, if it is not acceptable."""
    return _read(path, "YAML", "a mapping (lines of 'key: value')")


def read_json(path: Path) -> Document:
    """Read a JSON file with an object in it, as `read_yaml` does.

    Comments (#, //, /* */) and commas behind last items pass, as they do in DeepSpeed, which reads Hjson.
    """
    return _read(path, "JSON", "an object: {...}")


def _read(path: Path, language: str, top: str) -> Document:
    origin = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"no such file{_nearest_file(path, language)}", origin) from None
    except IsADirectoryError:
        raise InputError(f"found a folder, expected a {language} file", origin) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", origin) from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"found more than {MAX_BYTES} bytes, expected a small {language} file", origin)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"found byte 0x{raw[error.start]:02x}, expected UTF-8 text", f"{origin}:{line}") from None
    if language == "JSON":
        text = _JSON_COMMENT.sub(
            lambda found: found[0] if found[0][0] == '"' else re.sub(r"[^\n]", " ", found[0]), text
        )
        # it writes characters beyond 16 bits as two escapes, which YAML doesn't know
        text = _PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)
    reader = _Reader(text, origin, language=language)
    data = reader.document()
    if not isinstance(data, dict) or (language == "JSON" and not reader.braces):
        raise InputError(f"found {_shown(data)}, expected {top}", origin)
    return Document(data, reader.marks)


def document_from(mapping: Mapping[str, Any]) -> Document:
    """Take values given from Python; raise InputError on keys that are not text and on NaN or infinities."""
    return Document(_plain(mapping, ()))


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """Return the document with `section.key=value` strings applied; values are YAML scalars or flow lists."""
    data, marks = document.data, dict(document.marks)
    for text in overrides:
        origin = f"override '{text}'"
        key, equals, written = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise InputError("expected key=value, such as scheduler.update_stride=3", origin)
        reader = _Reader(written, origin, path, has_lines=False)
        value = reader.document()
        data = dict(data)
        section = data
        for depth, part in enumerate(path[:-1], start=1):
            inner = section.get(part)
            if inner is not None and not isinstance(inner, Mapping):
                raise InputError(f"'{dotted(path[:depth])}' is a value, not a section of keys", origin)
            section[part] = dict(inner or {})
            section = section[part]
            marks.setdefault(path[:depth], Mark(origin, 0, ""))
        section[path[-1]] = value
        marks = {known: mark for known, mark in marks.items() if known[: len(path)] != path}
        marks |= {path: Mark(origin, 0, "")} | reader.marks
    return Document(data, marks)


def validate(document: Document, model: type[ModelT], data: Any = None, at: KeyPath = ()) -> ModelT:
    """Build `model` from the document, or from `data`, which the document holds at the path `at`.

    Raises InputError for the first problem by line. Missing keys come last: a misspelt key is missing too.
    """
    try:
        return model.model_validate(document.data if data is None else data)
    except ValidationError as error:
        problems = [_problem(document, model, details, at) for details in error.errors(include_url=False)]
    order = [(problem.missing, document.mark(problem.path).line) for problem in problems]
    first = problems[order.index(min(order))]
    raise document.error(first.path, first.text)


class _Problem(NamedTuple):
    path: KeyPath
    text: str
    missing: bool = False


def _problem(document: Document, model: type[BaseModel], details: ErrorDetails, at: KeyPath) -> _Problem:
    """Turn one of pydantic's errors into a path and a sentence."""
    kind, context = details["type"], details.get("ctx", {})
    path = _existing(document.data, at + details["loc"])
    if kind in ("missing", "extra_forbidden"):
        name, section = str(details["loc"][-1]), at + details["loc"][:-1]
        fields = _fields(model, details["loc"][:-1])
        if kind == "missing":
            meaning = f" ({fields[name]})" if fields.get(name) else ""
            return _Problem(section, f"missing key '{dotted((*section, name))}'{meaning}", missing=True)
        place = f" in {dotted(section)}" if section else ""
        return _Problem((*section, name), f"unknown key '{name}'{place}{suggestion(name, fields)}")
    cause = context.get("error")
    if isinstance(cause, Expected):
        path, expected = path + cause.at, cause.expected
        if _existing(document.data, path) != path:  # a default that does not go with what is given
            return _Problem(path, f"{dotted(path)}: expected {expected}")
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**context)
    else:
        return _Problem(path, f"{dotted(path)}: {cause or details['msg']}")
    return _Problem(path, f"{dotted(path)}: found {document.found(path)}, expected {expected}")


def _existing(data: Any, path: KeyPath) -> KeyPath:
    """Cut from the path what is not in the data: pydantic adds the names of a union's branches."""
    for end, part in enumerate(path):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return path[:end]
    return path


def _fields(model: type[BaseModel], path: KeyPath) -> dict[str, str]:
    """Return name -> meaning of the keys that the section at `path` of `model` may have in a file."""
    for part in path:
        known = model.model_fields.get(str(part))
        section = section_type(known.annotation) if known else None
        if section is None:
            return {}
        model = section
    return {name: info.description or "" for name, info in model.model_fields.items() if not info.exclude}


def _shown(value: Any, text: str = "") -> str:
    """Return a value as messages quote it."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section of keys"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return text or str(value).lower()
    shown = repr(value) if isinstance(value, str) else text or str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _plain(value: Any, path: KeyPath) -> Any:
    if len(path) > MAX_DEPTH:
        raise InputError(f"{dotted(path[:3])}...: found more than {MAX_DEPTH} levels, expected fewer")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{dotted((*path, key))}: found the key {key!r}, expected text")
        return {key: _plain(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, (*path, index)) for index, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{dotted(path)}: found {value}, expected a finite number")
    if isinstance(value, int) and abs(value) > 10**MAX_DIGITS:
        raise InputError(f"{dotted(path)}: found more than {MAX_DIGITS} digits, expected a number of ordinary size")
    return value


def _nearest_file(path: Path, language: str) -> str:
    suffix = f".{language.lower()}"
    stems = sorted(other.stem for other in path.parent.glob(f"*{suffix}")) if path.parent.is_dir() else []
    near = nearest(path.stem, stems)
    return f"; did you mean '{path.with_name(near)}{suffix}'?" if near else ""


class _Reader:
    """Builds plain Python values from the parser's events, noting where each was written."""

    def __init__(
        self, text: str, origin: str, root: KeyPath = (), has_lines: bool = True, language: str = "YAML"
    ) -> None:
        self.text, self.origin, self.root, self.has_lines, self.language = text, origin, root, has_lines, language
        self.braces = False  # whether the document is written {...}
        self.marks: dict[KeyPath, Mark] = {}
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Any:
        """Read the one document; an empty one is None."""
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            tabs = any("\t" in text for text in self.text.split("\n")[line - 1 : line])
            hint = " (indent with spaces, not tabs)" if tabs and self.language == "YAML" else ""
            raise self._error(line, f"not valid {self.language}: {error.problem}{hint}") from None
        except yaml.reader.ReaderError as error:
            # libyaml gives the character as a number and counts its position in bytes
            character = chr(error.character) if isinstance(error.character, int) else error.character
            line = self.text.count("\n", 0, max(self.text.find(character), 0)) + 1
            raise self._error(line, f"found the character {character!r}, expected text") from None
        except UnicodeEncodeError as error:  # an undecodable byte of the command line
            raise self._error(0, f"found the character {error.object[error.start]!r}, expected text") from None

    def _document(self) -> Any:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        event = next(self.events)
        self._note(self.root, event)
        self.braces = bool(getattr(event, "flow_style", False))
        value = self._value(event, self.root)
        next(self.events)  # the document's end
        if not isinstance(following := next(self.events), yaml.StreamEndEvent):
            raise self._error(_line(following), "found a second document, expected one")
        return value

    def _value(self, event: Any, path: KeyPath) -> Any:
        if isinstance(event, yaml.AliasEvent):
            raise self._error(_line(event), f"found the alias *{event.anchor}, expected the value written out")
        if event.tag is not None:
            raise self._error(_line(event), f"found the tag {event.tag!r}, expected a value without one")
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else self._scalar(event)
        if len(path) >= MAX_DEPTH:
            raise self._error(_line(event), f"found more than {MAX_DEPTH} levels, expected fewer")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item = (*path, len(items))
            self._note(item, event)
            items.append(self._value(event, item))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise self._error(_line(key), "found a key that is not a word, expected 'key: value'")
            item = (*path, key.value)  # as written: the key `on` is not true
            if key.value in items:
                first = self.marks[item].line
                raise self._error(_line(key), f"duplicate key '{dotted(item)}'; the first is on line {first}")
            event = next(self.events)
            self._note(item, event, _line(key))
            items[key.value] = self._value(event, item)
        return items

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if len(text) <= 5 and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if _WHOLE.fullmatch(text) and len(text) <= MAX_DIGITS:
            return int(text.replace("_", ""))
        if _NUMBER.fullmatch(text):
            number = float(text.replace("_", "")) if len(text) <= MAX_DIGITS else math.inf
            if math.isfinite(number):
                return number
            raise self._error(_line(event), f"found {_shown(number, text)}, expected a number of ordinary size")
        if _NOT_FINITE.fullmatch(text):
            raise self._error(_line(event), f"found {text}, expected a finite number")
        return text

    def _note(self, path: KeyPath, event: Any, line: int = 0) -> None:
        text = event.value if isinstance(event, yaml.ScalarEvent) else ""
        self.marks[path] = Mark(self.origin, (line or _line(event)) if self.has_lines else 0, text)

    def _error(self, line: int, problem: str) -> InputError:
        return InputError(problem, f"{self.origin}:{line}" if self.has_lines and line else self.origin)


def _line(event: Any) -> int:
    """Return an event's line, counted from 1."""
    return int(event.start_mark.line) + 1
