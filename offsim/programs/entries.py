"""Classes that installed packages register by entry points: loaded when a scenario chooses one."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TypeVar

from offsim.inputs.errors import InputError

Base = TypeVar("Base")


def load_class(entry: EntryPoint, what: str, base: type[Base], documented: str) -> type[Base]:
    """Load a subclass of `base`; InputError where a package cannot be loaded or registers something else.

    `documented` is the class's public name and the page that explains it.
    """
    origin = f"{what} '{entry.name}' ({entry.value}{f' of {entry.dist.name}' if entry.dist else ''})"
    try:
        found = entry.load()
    except Exception as error:  # whatever a foreign module raises when it is imported
        raise InputError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{origin} is not a subclass of {documented}")
    return found
