"""Classes by name, built in or registered by the entry points of packages: loaded when a scenario chooses one."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from offsim.inputs.errors import InputError, suggestion

Base = TypeVar("Base")


class Classes(UserDict[str, type[Base]]):
    """Classes by name. Those of a package, each in the module of its name, are imported when asked for."""

    def __init__(self, package: str, names: Mapping[str, str]) -> None:
        """Take the package, and for each of the names that of the class."""
        super().__init__()
        self.package, self.names = package, names
        self.data: dict[str, Any] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> type[Base]:
        found: type[Base] | None = self.data[name]
        if found is None:
            found = self.data[name] = getattr(import_module(f"{self.package}.{name}"), self.names[name])
        return found


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def names_of(group: str, built_in: Mapping[str, object]) -> list[str]:
    """Names of the built-in classes, then of those that installed packages register."""
    return [*built_in, *sorted(_entries(group).keys() - built_in)]


def find_class(
    name: str, group: str, built_in: Mapping[str, type[Base]], what: str, base: type[Base], documented: str
) -> type[Base]:
    """Return the class of that name; InputError where there is none or its package cannot be loaded.

    `documented` is the public name of `base` and the page that explains it.
    """
    if name in built_in:
        return built_in[name]
    entry = _entries(group).get(name)
    if entry is None:
        raise InputError(f"unknown {what} '{name}'{suggestion(name, names_of(group, built_in))}")
    return _load(entry, what, base, documented)


def _load(entry: EntryPoint, what: str, base: type[Base], documented: str) -> type[Base]:
    """Load a subclass of `base`; InputError where a package cannot be loaded or registers something else."""
    origin = f"{what} '{entry.name}' ({entry.value}{f' of {entry.dist.name}' if entry.dist else ''})"
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        raise InputError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{origin} is not a subclass of {documented}")
    return found
