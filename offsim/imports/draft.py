"""A scenario in the making, with an account of every key that it was made from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from offsim.imports.deepspeed_keys import TRAINERS, Values
from offsim.imports.keys import AUTO, NOT_GIVEN, Section
from offsim.inputs.document import Mark
from offsim.inputs.errors import KeyPath
from offsim.programs.options import Option

CHECKPOINTING = "training.activation_checkpointing"


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of an imported file (or an option of the command line), its value and what became of it."""

    key: str
    found: str
    became: str

    def __str__(self) -> str:
        return f"{self.key}: {self.found} -> {self.became}"


@dataclass
class Draft:
    """Values of a scenario, where each came from, and lists that together name every key that was read."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    sources: dict[KeyPath, str] = field(default_factory=dict)
    """What to write behind a value when the scenario is written to a file."""
    used: list[Entry] = field(default_factory=list)
    assumed: list[Entry] = field(default_factory=list)
    """What no file decides."""
    ignored: list[Entry] = field(default_factory=list)
    """Keys that do not change the time of an iteration."""
    not_modelled: list[Entry] = field(default_factory=list)
    """What the prediction stands for instead."""

    _accounted: set[tuple[int, KeyPath]] = field(default_factory=set, init=False, repr=False)
    """Document and path of the keys that are in a list."""

    def take(
        self, section: Section, key: str, target: str, value: Any, why: str = "", *, assumed: bool | None = None
    ) -> None:
        """Set `target`, a dotted path in the scenario, from a key of a file; `why` where it is not simply the key's.

        It counts as assumed where the file does not have the key, unless `assumed` says otherwise.
        """
        given = key in section
        mark = section.document.mark(section.at(key))
        became = self._set(target, value, why)
        entry = self._entry(section, key, became)
        self._note(target, mark if given else mark._replace(line=0), entry)
        (self.assumed if assumed or (assumed is None and not given) else self.used).append(entry)

    def take_or_default(self, section: Section, key: str, target: str, value: Any, default: Any) -> None:
        """Set `target` to the value of a key; to DeepSpeed's default where there is none."""
        if value is None:
            self.take(section, key, target, default, "DeepSpeed's default")
        else:
            self.take(section, key, target, value)

    def take_options(self, section: Section, options: Mapping[str, Option]) -> None:
        """Set options by the keys of a section that say them; by DeepSpeed's defaults where it lacks those."""
        for key, option in options.items():
            target, default = f"scheduler.{option.name}", option.deepspeed_default
            example = option.default if default == AUTO else default
            value = section.given(key) if example is None else section.like(key, example)
            if section.is_auto(key):
                value = TRAINERS.get(key)
            if isinstance(option.default, bool) and isinstance(value, float):
                value = value > 0
            meant = default if value is None else value
            if isinstance(meant, Hashable) and (meaning := option.deepspeed_values.get(meant)):
                values, why = meaning
                assumed = True if value is None and default == AUTO else None
                self.take(section, key, target, values[0] if values else option.default, why, assumed=assumed)
            else:
                self.take_or_default(section, key, target, value, default)

    def option(self, option: str, target: str, value: Any, found: str, why: str) -> None:
        """Set `target` from an option of the command line."""
        entry = Entry(option, found, self._set(target, value, why))
        self._note(target, Mark(option), entry)
        (self.assumed if found == NOT_GIVEN else self.used).append(entry)

    def _set(self, target: str, value: Any, why: str) -> str:
        """Set a value of the scenario; return what to say of it."""
        *sections, name = target.split(".")
        values = self.data
        for section in sections:
            values = values.setdefault(section, {})
        values[name] = value
        became = f"{target} {str(value).lower() if isinstance(value, bool) else value}"
        return f"{became} ({why})" if why else became

    def _note(self, target: str, mark: Mark, entry: Entry) -> None:
        """Note where a value of the scenario is from."""
        path: KeyPath = tuple(target.split("."))
        self.marks[path] = mark._replace(text="")
        for depth in range(1, len(path)):
            self.marks.setdefault(path[:depth], Mark(mark.origin))
        where = f"{mark.where} " if mark.line else ""
        self.sources[path] = f"{where}{entry.key}: {entry.found}"

    def _entry(self, section: Section, key: str, became: str) -> Entry:
        self._accounted.add((id(section.document), section.at(key)))
        return Entry(section.name(key), section.shown(key), became)

    def note_read(self, section: Section, key: str) -> None:
        """Count a key as accounted for, which a list names under its own name only."""
        self._accounted.add((id(section.document), section.at(key)))

    def accounts_for(self, section: Section, key: str) -> bool:
        """Whether a list names the key."""
        return (id(section.document), section.at(key)) in self._accounted

    def use(self, section: Section, key: str, meaning: str) -> None:
        """List a key that is modelled without being a value of the scenario, or its default."""
        (self.used if key in section else self.assumed).append(self._entry(section, key, meaning))

    def ignore(self, section: Section, key: str, why: str) -> None:
        """List a key without effect on the time of an iteration."""
        self.ignored.append(self._entry(section, key, why))

    def ignore_all(self, section: Section, reasons: Mapping[str, str]) -> None:
        """List those of the keys as ignored that the section has and no list names yet."""
        for key, why in reasons.items():
            if key in section and not self.accounts_for(section, key):
                self.ignore(section, key, why)

    def take_only(self, section: Section, only: Values) -> None:
        """List keys of which one value can be simulated; InputError for any other."""
        for key, (expected, other) in only.items():
            if key not in section:
                continue
            value = section.like(key, expected, -1)
            if value is not None and value != expected:
                raise section.unexpected(key, f"{str(expected).lower()}: {other} cannot be simulated")
            self.use(section, key, "as simulated")

    def leave(self, section: Section, key: str, instead: str) -> None:
        """List a key that is not modelled, and what is simulated instead."""
        self.not_modelled.append(self._entry(section, key, f"simulated: {instead}"))

    @property
    def lists(self) -> dict[str, list[Entry]]:
        """The lists by what became of their keys."""
        return {
            "taken": self.used,
            "assumed": self.assumed,
            "ignored": self.ignored,
            "not modelled": self.not_modelled,
        }
