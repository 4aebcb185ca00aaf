"""Input values with their positions, so that every error can name file and line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from offsim.inputs.errors import Expected, InputError, KeyPath
from offsim.inputs.units import without_unit

MAX_DEPTH = 16
MAX_DIGITS = 30


class Mark(NamedTuple):
    """The position of a value in the input."""

    origin: str
    line: int = 0  # 0 where the origin has no lines, as a command-line override
    text: str = ""  # a scalar as written, to quote it in messages; empty for sections and lists

    @property
    def where(self) -> str:
        """`file:line`, or the override."""
        return f"{self.origin}:{self.line}" if self.line else self.origin


@dataclass(frozen=True, eq=False)
class Document:
    """Input values and their positions. Values from Python have no marks."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        # where its values were written does not make two scenarios differ
        return isinstance(other, Document)

    def mark(self, path: KeyPath) -> Mark:
        """Return the mark of `path`, or of the innermost enclosing section that has one."""
        marks = (self.marks.get(path[:end]) for end in range(len(path), -1, -1))
        return next((mark for mark in marks if mark), Mark(""))

    def found(self, path: KeyPath) -> str:
        """Return the value at `path` for a message: as written, if known."""
        value: Any = self.data
        for part in path:
            value = value[part]
        return shown(value, self.marks[path].text if path in self.marks else "")

    def without_unit(self, path: KeyPath, value: Any, field: str = "") -> Any:
        """Return `value`, written at `path`, as the number in the unit of the `field`, or of the path's last part."""
        try:
            return without_unit(field or str(path[-1]), value)
        except Expected as error:
            raise self.unexpected(path, error.expected) from None

    def error(self, path: KeyPath, problem: str) -> InputError:
        """Return an error about the value at `path`."""
        return InputError(problem, self.mark(path).where)

    def unexpected(self, path: KeyPath, expected: str) -> InputError:
        """Return an error about an unexpected value at `path`."""
        return self.error(path, f"{dotted(path)}: found {self.found(path)}, expected {expected}")


def document_from(mapping: Mapping[str, Any]) -> Document:
    """Take values from Python; raise InputError for keys that are not text, NaN and infinities."""
    return Document(_plain(mapping, ()))


def dotted(path: KeyPath) -> str:
    """Return a key path in the form of messages and overrides: `training.micro_batch`."""
    return ".".join(map(str, path))


def flat(section: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return dotted key -> value of a section and the sections in it."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def shown(value: Any, written: str = "") -> str:
    """Return a value for a message: numbers and flags as written, if known."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section of keys"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        quoted = repr(value)
    else:
        quoted = written or (str(value).lower() if isinstance(value, bool) else str(value))
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}..."


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
