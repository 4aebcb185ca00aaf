"""The errors of wrong input: one clear message each, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

KeyPath = tuple[str | int, ...]

MAX_LENGTH = 1000
"""A message is one line that a terminal shows on one page."""


class InputError(Exception):
    """Something the user wrote is wrong.

    `problem` says what was found and what is expected; `where` is the file and line, or the command-line
    override, that it was found in, and is empty for values that came from Python.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem, where)  # both as args, so that the error survives pickling between processes
        self.problem = problem
        self.where = where

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        line = text.replace("\n", "\\n")  # names that are quoted may be of any kind
        half = MAX_LENGTH // 2
        return line if len(line) <= MAX_LENGTH else f"{line[: half - 3]}...{line[-half:]}"


class Expected(ValueError):
    """Raised by validators of input models: says what a value should have been.

    A section's validator, which sees several fields, names the offending one in `at`, relative to the section.
    """

    def __init__(self, expected: str, at: KeyPath = ()) -> None:
        super().__init__(f"expected {expected}")
        self.expected = expected
        self.at = at


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that `name` most likely stands for, if any comes close."""
    near = difflib.get_close_matches(name.lower(), valid, n=1)
    return near[0] if near else None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Return what to append to "unknown ...": the nearest valid name, else all of them."""
    names = sorted(valid)
    if near := nearest(name, names):
        return f"; did you mean '{near}'?"
    return f"; expected one of: {', '.join(names)}" if names else "; nothing is expected here"
