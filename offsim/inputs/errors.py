"""Errors about wrong input: one clear message each, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

KeyPath = tuple[str | int, ...]

MAX_LENGTH = 1000
MAX_WHERE = 500


def one_line(text: str, most: int = MAX_LENGTH) -> str:
    """Text that may quote input of any length, with line breaks, as one line of at most so many characters."""
    if len(text) > most:
        text = f"{text[: most // 2 - 3]}...{text[-(most // 2) :]}"
    return text.replace("\n", "\\n").replace("\r", "\\r")


class InputError(Exception):
    """An error in the user's input.

    `problem` states the value found and the value expected; `where` is the file and line, or the command-line override,
    and is empty for values from Python.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem, where)  # both as args, so that the error survives pickling between processes
        self.problem = problem
        self.where = where

    def __str__(self) -> str:
        problem = one_line(self.problem)
        return f"{one_line(self.where, MAX_WHERE)}: {problem}" if self.where else problem


class Expected(ValueError):
    """Raised by validators of input models, with the expected value.

    A validator of a whole section names the wrong field in `at`, relative to the section.
    """

    def __init__(self, expected: str, at: KeyPath = ()) -> None:
        super().__init__(f"expected {expected}")
        self.expected = expected
        self.at = at


class UnknownKey(ValueError):
    """Raised by validators of a section that some values allow further keys: these don't allow `key`."""

    def __init__(self, key: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown key '{key}'")
        self.key = key
        self.known = sorted(known)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name closest to `name`, if any is close."""
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    return near[0] if near else None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Return the end of an "unknown ..." message: the nearest valid name, otherwise all of them."""
    names = sorted(valid)
    if near := nearest(name, names):
        return f"; did you mean '{near}'?"
    return f"; expected one of: {', '.join(names)}" if names else "; nothing is expected here"
