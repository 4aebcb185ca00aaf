"""YAML and JSON with the line of every value.

The accepted language is a subset: one document with a mapping at the top, no tags, no aliases (hence no alias bombs),
no duplicate keys, bounded size and depth. Numbers follow YAML 1.2: `1e8` is a number, `010` is ten. `yes`, `no`, `on`
and `off` are booleans, as in PyYAML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from offsim.inputs.document import MAX_DEPTH, MAX_DIGITS, Document, Mark, dotted, shown
from offsim.inputs.errors import InputError, KeyPath
from offsim.inputs.reading import read_at_most, reading

MAX_BYTES = 1_000_000

Keys = tuple[str, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*")
_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_TEXT_OR_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|(?://|#)[^\n]*|/\*.*?\*/', re.DOTALL)
_SURROGATES = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None}
_WORDS |= dict.fromkeys(("true", "yes", "on"), True) | dict.fromkeys(("false", "no", "off"), False)


def read_yaml(path: Path) -> Document:
    """Read a YAML file; raise InputError, with the line if known, for invalid content."""
    reader = _Reader(_text(path, "YAML"), str(path))
    if not isinstance(data := reader.document(), dict):
        raise InputError(f"found {shown(data)}, expected a mapping (lines of 'key: value')", str(path))
    return Document(data, reader.marks)


def read_json(path: Path) -> Document:
    """Read a JSON file with an object at the top, as `read_yaml` does.

    Comments (#, //, /* */) and trailing commas are allowed, as in DeepSpeed, which reads Hjson.
    """
    text = _TEXT_OR_COMMENT.sub(lambda part: part[1] or re.sub(r"[^\n]", " ", part[0]), _text(path, "JSON"))
    # JSON writes characters beyond 16 bits as two escapes, which YAML does not know
    text = _SURROGATES.sub(lambda pair: json.loads(f'"{pair[0]}"'), text)
    reader = _Reader(text, str(path), language="JSON")
    if not isinstance(data := reader.document(), dict) or not text.lstrip().startswith("{"):
        raise InputError(f"found {shown(data)}, expected an object: {{...}}", str(path))
    return Document(data, reader.marks)


def with_overrides(
    document: Document, overrides: Sequence[str], place: Callable[[Keys, str], Keys] = lambda path, _: path
) -> Document:
    """Return the document with `section.key=value` strings applied; values are YAML scalars or flow lists.

    `place` says where to put the value of a path, by how it is written.
    """
    for override in overrides:
        document = _with_override(document, override, place)
    return document


def _with_override(document: Document, override: str, place: Callable[[Keys, str], Keys]) -> Document:
    here = Mark(f"override '{override}'")
    key, equals, written = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise InputError("expected key=value, such as training.micro_batch=2", here.where)
    if len(path) > MAX_DEPTH:
        raise InputError(f"found a key of {len(path)} parts, expected at most {MAX_DEPTH}", f"override '{key[:40]}...'")
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(key):
        raise InputError(f"found the character {bad[0]!r} in the key, expected text", here.where)
    path = place(path, written)
    reader = _Reader(written, here.origin, root=path)
    value = reader.document()
    marks = {known: mark for known, mark in document.marks.items() if known[: len(path)] != path}
    data = dict(document.data)
    section = data
    for depth, part in enumerate(path[:-1], start=1):
        inner = section.get(part)
        if inner is not None and not isinstance(inner, Mapping):
            raise InputError(f"'{dotted(path[:depth])}' is a value, not a section of keys", here.where)
        section[part] = dict(inner or {})  # the document given stays as it is
        section = section[part]
        marks.setdefault(path[:depth], here)
    section[path[-1]] = value
    return Document(data, marks | {path: here} | reader.marks)


def _text(path: Path, language: str) -> str:
    with reading(path, f"a {language} file") as file:
        raw = read_at_most(file, MAX_BYTES, f"a small {language} file", path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"found byte 0x{raw[error.start]:02x}, expected UTF-8 text", f"{path}:{line}") from None


class _Reader:
    """Builds plain Python values and their marks from the parser's events.

    It avoids composed nodes: the composer follows aliases, and its recursion in C overflows on deep nesting.
    """

    def __init__(self, text: str, origin: str, language: str = "YAML", root: KeyPath = ()) -> None:
        """Read `text`; with a `root` it is the value of an override, without lines."""
        self.text, self.origin, self.language, self.root = text, origin, language, root
        self.marks: dict[KeyPath, Mark] = {}
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Any:
        """Read the one document; an empty one is None."""
        if bad := yaml.reader.Reader.NON_PRINTABLE.search(self.text):
            raise self._error(self.text.count("\n", 0, bad.start()), f"found the character {bad[0]!r}, expected text")
        try:
            next(self.events)  # the stream's start
            if isinstance(next(self.events), yaml.StreamEndEvent):
                return None
            value = self._value(next(self.events), self.root)
            next(self.events)  # the document's end
            if not isinstance(following := next(self.events), yaml.StreamEndEvent):
                raise self._error(following, "found a second document, expected one")
            return value
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line if error.problem_mark else 0
            tabs = "\t" in "".join(self.text.split("\n")[line : line + 1])
            hint = " (indent with spaces, not tabs)" if tabs and self.language == "YAML" else ""
            raise self._error(line, f"not valid {self.language}: {error.problem}{hint}") from None

    def _value(self, event: Any, path: KeyPath, key: Any = None) -> Any:
        """Read the value that starts with `event`; its mark is that of its key, if any."""
        scalar = isinstance(event, yaml.ScalarEvent)
        self.marks[path] = self._mark(key or event, event.value if scalar else "")
        if isinstance(event, yaml.AliasEvent):
            raise self._error(event, f"found the alias *{event.anchor}, expected the value written out")
        if event.tag is not None:
            raise self._error(event, f"found the tag {event.tag!r}, expected a value without one")
        if scalar:
            return event.value if event.style else self._plain_scalar(event)
        if len(path) >= MAX_DEPTH:
            raise self._error(event, f"found more than {MAX_DEPTH} levels, expected fewer")
        return self._list(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _list(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise self._error(key, "found a key that is not a word, expected 'key: value'")
            item = (*path, key.value)  # as written: the key `on` is not true
            if key.value in items:
                first = self.marks[item].line
                raise self._error(key, f"duplicate key '{dotted(item)}'; the first is on line {first}")
            items[key.value] = self._value(next(self.events), item, key)
        return items

    def _plain_scalar(self, event: Any) -> Any:
        """Return the value of a plain scalar."""
        text: str = event.value
        if len(text) <= 5 and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if _NOT_FINITE.fullmatch(text):
            raise self._error(event, f"found {text}, expected a finite number")
        if not _NUMBER.fullmatch(text):
            return text
        if len(text) <= MAX_DIGITS:
            number = (int if _WHOLE.fullmatch(text) else float)(text.replace("_", ""))
            if math.isfinite(number):
                return number
        raise self._error(event, f"found {shown(0, text)}, expected a number of ordinary size")

    def _mark(self, at: Any, text: str = "") -> Mark:
        """Return the mark of an event, or of a line counted from 0."""
        line = at if isinstance(at, int) else at.start_mark.line
        return Mark(self.origin, 0 if self.root else line + 1, text)

    def _error(self, at: Any, problem: str) -> InputError:
        return InputError(problem, self._mark(at).where)
