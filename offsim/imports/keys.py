"""Sections of a JSON file, read key by key: a wrong value is one message with file and line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from offsim.inputs.document import Document, dotted
from offsim.inputs.errors import InputError, KeyPath, nearest
from offsim.inputs.fields import MAX_COUNT
from offsim.programs.options import Option
from offsim.schedulers.registry import known_options

AUTO = "auto"
"""What Hugging Face's integration replaces before DeepSpeed sees it; DeepSpeed takes its default for what is left."""

NOT_GIVEN = "not given"

MEANT = {"gpu": "none", "cuda": "none", "host": "cpu", "dram": "cpu", "ssd": "nvme", "disk": "nvme"}
"""Other words for DeepSpeed's devices of offload: by its letters alone, gpu would be cpu."""

MAX_LIMIT = 2.0**63
"""Limits that are larger than anything may be as large as this, as DeepSpeed's defaults are."""


class Section:
    """One section of a document; absent, null and "auto" keys read as None."""

    def __init__(self, document: Document, path: KeyPath = (), known: Collection[str] | None = None) -> None:
        """Open the section at `path`; with `known`, any other key that says no option either is an InputError."""
        self.document, self.path = document, path
        values: Any = document.data
        for part in path:
            values = None if values is None else values.get(part)
        self.values: dict[str, Any] = {} if values is None else values
        if not isinstance(self.values, dict):
            raise document.unexpected(path, "a section of keys")
        if known is not None:
            known = (*known, *option_keys(path))
            for key in self.values:
                if key not in known:
                    raise self.unknown(key, known)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, key: str) -> KeyPath:
        """The path of a key."""
        return (*self.path, key)

    def name(self, key: str) -> str:
        """A key as messages write it: zero_optimization.stage."""
        return dotted(self.at(key))

    def shown(self, key: str) -> str:
        """The value of a key as messages quote it."""
        return self.document.found(self.at(key)) if key in self else NOT_GIVEN

    def unknown(self, key: str, known: Collection[str]) -> InputError:
        """The error about a key that is not one of `known`."""
        near = nearest(key, known)
        hint = f"; did you mean '{near}'?" if near else "; offsim knows no such key"
        place = f" in {dotted(self.path)}" if self.path else ""
        return self.document.error(self.at(key), f"unknown key '{key}'{place}{hint}")

    def check_spelling(self, known: Collection[str]) -> None:
        """Raise InputError for what is nearly a known key that is missing: a slip would silently mean its default."""
        for key in self.values:
            near = get_close_matches(key, known, n=1, cutoff=0.9)
            if near and key not in known and near[0] not in self:
                raise self.unknown(key, known)

    def unexpected(self, key: str, expected: str) -> InputError:
        """The error about the value of a key."""
        if key not in self:
            return self.document.error(self.path, f"missing key '{self.name(key)}': expected {expected}")
        return self.document.unexpected(self.at(key), expected)

    def refused(self, key: str, what: str) -> InputError:
        """The error about a key that would change an iteration but cannot be simulated."""
        return self.document.error(self.at(key), f"{self.name(key)}: {what} cannot be simulated")

    def is_auto(self, key: str) -> bool:
        """Whether the value is left to Hugging Face's integration."""
        return bool(self.values.get(key) == AUTO)

    def given(self, key: str) -> Any:
        """The value as it is."""
        return None if self.is_auto(key) else self.values.get(key)

    def number(self, key: str, low: float = 0, high: float = MAX_COUNT) -> float | None:
        """A number from `low` to `high`."""
        value = self.given(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.unexpected(key, "a number")
        if not low <= value <= high:
            raise self.unexpected(key, f"at least {low:g}" if value < low else f"at most {high:g}")
        return value

    def count(self, key: str, low: float = 1, high: float = MAX_COUNT) -> int | None:
        """A whole number from `low` to `high`; 1e8 is one."""
        value = self.number(key, low, high)
        if value is not None and value != int(value):
            raise self.unexpected(key, "a whole number")
        return None if value is None else int(value)

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.given(key)
        if value is not None and not isinstance(value, bool):
            raise self.unexpected(key, "true or false")
        return value

    def like(self, key: str, example: object, low: float = 0) -> float | bool | str | None:
        """A flag or a text where the example is one, a whole number from `low` where it is one, else a number."""
        if isinstance(example, bool | str):
            return self.word(key) if isinstance(example, str) else self.flag(key)
        value = (self.count if isinstance(example, int) else self.number)(key, low, MAX_LIMIT)
        return float(value) if value is not None and isinstance(example, float) else value

    def word(self, key: str, choices: Collection[str] = ()) -> str | None:
        """A text, one of `choices` where there are any."""
        value = self.given(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.unexpected(key, "text")
        if choices and value not in choices:
            raise self.unknown_choice(key, choices)
        return value

    def unknown_choice(self, key: str, choices: Collection[str]) -> InputError:
        """The error about a text that is not one of `choices`."""
        written, by_lower = str(self.values[key]).lower(), {choice.lower(): choice for choice in choices}
        near = by_lower.get(MEANT.get(written) or nearest(written, by_lower) or "")
        return self.unexpected(key, f"one of {', '.join(choices)}" + (f"; did you mean '{near}'?" if near else ""))

    def section(self, key: str, known: Collection[str] | None = None) -> Section:
        """The section under a key; an empty one where there is none."""
        return Section(self.document, self.at(key), known)


def option_keys(section: KeyPath, options: Iterable[Option] | None = None) -> dict[str, Option]:
    """Key of a section of DeepSpeed's configuration -> the option that it says, of all schedulers if not of these."""
    asked = known_options().values() if options is None else options
    keys = {option.deepspeed.rpartition("."): option for option in asked}
    return {key: option for (path, _, key), option in keys.items() if key and path == dotted(section)}


def switched_on(value: Any, switch: str) -> bool:
    """Whether a section has `switch: true` anywhere in it."""
    if not isinstance(value, Mapping):
        return False
    return value.get(switch) is True or any(switched_on(inner, switch) for inner in value.values())
