"""JSON read piece by piece: a trace of gigabytes is never in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from offsim.inputs.errors import InputError

_CHUNK = 1 << 22
_LONGEST = 1 << 26
"""Bytes of one event, or of one other value of the document."""
_TORN = 16
"""Characters at the end of what is read within which a number, a word or an escape may be incomplete."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False)  # tools write control characters, and NaN; a number that is used is checked


class TraceJson:
    """A document of trace events: `events()` yields them, `others` has the other values of the document once it ended.

    Either an object with the key "traceEvents", or an array of events, which as in Chrome may lack its closing bracket.
    """

    def __init__(self, read: Callable[[int], bytes], path: Path) -> None:
        self._read = read
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode  # tools write names that are not
        self._text = ""
        self._at = 0
        self.others: dict[str, Any] = {}

    def events(self) -> Iterator[dict[str, Any]]:
        """The events in their order."""
        if self._skipped("["):
            yield from self._events(may_be_open=True)
            return
        if not self._skipped("{"):
            found = self._found() if self._peek() else "an empty file"
            self._fail(f"found {found}, expected a trace: JSON of Kineto, or an SQLite export of Nsight Systems")
        has_events = False
        while not self._skipped("}"):
            if self._skipped(","):
                continue
            if self._peek() != '"':
                self._fail(f"not valid JSON: {self._found()} where a key of the document is expected")
            key = str(self._value("a key"))
            if not self._skipped(":"):
                self._fail(f"not valid JSON: {self._found()} behind the key '{key[:40]}', expected ':'")
            if key != "traceEvents":
                self.others[key] = self._value(f"the value of '{key[:40]}'")
                continue
            if not self._skipped("["):
                self._fail(f"traceEvents: found {self._found()}, expected an array of events")
            has_events = True
            yield from self._events(may_be_open=False)
        if not has_events:
            keys = ", ".join(sorted(key[:40] for key in self.others)[:5]) or "none"
            self._fail(f"found no key 'traceEvents' (but {keys}), expected a trace of Kineto")

    def _events(self, *, may_be_open: bool) -> Iterator[dict[str, Any]]:
        count = 0
        while not self._skipped("]"):
            if self._skipped(","):
                continue
            if may_be_open and not self._peek():
                return
            if self._peek() != "{":
                self._fail(f"event {count}: found {self._found()}, expected an object")
            yield self._value(f"event {count}")
            count += 1

    def _value(self, what: str) -> Any:
        """The value that comes next, read on until it is complete."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                self._fail(f"{what}: not valid JSON: too many levels")
            except json.JSONDecodeError as error:
                torn = error.msg.startswith("Unterminated") or error.pos + _TORN > len(self._text)
                if not torn or not self._more():
                    self._fail(f"{what}: not valid JSON, or cut off: {error.msg}")
            else:
                if end + _TORN <= len(self._text) or not self._more():
                    self._at = end
                    return value

    def _peek(self) -> str:
        """The next character that is no space, where reading goes on; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches everywhere
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _skipped(self, mark: str) -> bool:
        """Whether the next character is this one, behind which reading then goes on."""
        found = self._peek() == mark
        self._at += found
        return found

    def _found(self) -> str:
        """The next character, as messages quote it."""
        return repr(mark) if (mark := self._peek()) else "the end of the file"

    def _more(self) -> bool:
        """Read on, keeping what is not used yet; False at the end of the file."""
        rest = self._text[self._at :]
        if len(rest) > _LONGEST:
            self._fail(f"found a value of more than {_LONGEST} bytes, expected events of a trace")
        if not (chunk := self._read(_CHUNK)):
            return False
        self._text, self._at = rest + self._decode(chunk), 0
        return True

    def _fail(self, problem: str) -> NoReturn:
        raise InputError(problem, str(self._path))
