"""The errors of wrong input: one clear message each, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

KeyPath = tuple[str | int, ...]

MAX_LENGTH = 1000
"""A problem may quote what was found, which may be of any length and have lines of its own."""


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
        problem, half = self.problem, MAX_LENGTH // 2
        if len(problem) > MAX_LENGTH:
            problem = f"{problem[: half - 3]}...{problem[-half:]}"
        text = f"{self.where}: {problem}" if self.where else problem
        return text.replace("\n", "\\n")


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
