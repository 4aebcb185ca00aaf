"""Hooks and helpers of a schedule that are code: each call of one has to be run, by `yield from` or on a thread."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

HOOKS = (
    *("fetch", "fetch_slice", "keep", "restore", "gradient", "after_backward", "before_update", "update"),
    "blocks",
)
"""Hooks that are code."""


class Called(list[Any]):
    """Code that a method returned, with owner and name. It notes with its owner where it was dropped without being run.

    A list is made faster than an object with attributes: it is empty once the code runs.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        code = self[2]
        self.clear()
        return code  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{self[1]}(...)" if self else "code that runs"

    def __del__(self) -> None:
        if self:
            owner, name, _ = self[:]
            where = sys._getframe(1)
            dropped(owner).append((name, where.f_code.co_filename, where.f_lineno))


def dropped(owner: Any) -> list[tuple[str, str, int]]:
    """Name, file and line of each call of an owner's code that was not run."""
    return vars(owner).setdefault("_dropped", [])  # type: ignore[no-any-return]


def watch(cls: type) -> None:
    """Watch the code of a class, and see that hooks which ought to be code are."""
    for name, function in list(vars(cls).items()):
        if inspect.isgeneratorfunction(function):
            setattr(cls, name, _watched(function))
        elif name in HOOKS and inspect.isfunction(function):
            setattr(cls, name, _returning_code(function))


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__

    @functools.wraps(function)
    def call(owner: Any, *given: Any, **named: Any) -> Called:
        return Called((owner, name, function(owner, *given, **named)))

    return call


def _returning_code(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        code = function(*given, **named)
        if not hasattr(code, "__iter__"):
            where = function.__code__
            raise HookError(
                f"found no `yield` in {function.__name__}, expected one: it is code",
                where.co_filename,
                where.co_firstlineno,
            )
        return code

    return call


class HookError(TypeError):
    """A hook is not what it has to be: the problem, and its file and line."""
