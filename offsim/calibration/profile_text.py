"""Profile files edited in place: comments, quotes and the order and form of entries stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from offsim.inputs.units import unit_of
from offsim.platform.hardware import Source

_NO_WRAPPING = 1_000_000


class ProfileValue(NamedTuple):
    """A value as calibration writes it into a profile."""

    value: float
    low: float | None
    high: float | None
    source: Source
    error: str = ""
    note: str = ""
    at_least: bool = False
    """Whether the value is only known to be no smaller."""


class _TextResolver(VersionedResolver):
    """Takes every scalar for text, so that numbers are written as they were read."""

    def resolve(self, kind: type, value: Any, implicit: Any) -> Any:
        return self.DEFAULT_SCALAR_TAG if kind is ScalarNode else super().resolve(kind, value, implicit)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Resolver = _TextResolver
    yaml.preserve_quotes = True
    yaml.width = _NO_WRAPPING
    return yaml


def parsed(path: Path) -> CommentedMap:
    """Read a profile's file for editing; it has been checked before."""
    document: CommentedMap = _yaml().load(path.read_text(encoding="utf-8-sig"))
    return document


def text_of(document: CommentedMap) -> str:
    """The text of an edited profile."""
    text = StringIO()
    _yaml().dump(document, text)
    return text.getvalue()


def put(document: CommentedMap, field: str, new: ProfileValue) -> None:
    """Set the value of a dotted field, or of a top-level one; where the profile has an entry, its other keys stay."""
    section, _, key = field.rpartition(".")
    if not section:
        document[key] = number(new.value, new.source)
        return
    if section not in document:
        document[section] = CommentedMap()
        document.yaml_set_comment_before_after_key(section, before="\n")
    entries = document[section]
    if key not in entries:
        entry = CommentedMap()
        entry.fa.set_flow_style()
        _append(entries, key, entry)
    unit = unit_of(key)
    texts = {
        "value": number(new.value, new.source),
        "low": number(new.low),
        "high": number(new.high),
        "unit": entries[key].get("unit", quoted(unit) if unit == "1" else unit),
        "source": new.source,
        "error": quoted(new.error),
        "note": quoted(new.note) or entries[key].get("note", ""),
    }
    _update(entries[key], texts)


def _update(entry: CommentedMap, texts: Mapping[str, str]) -> None:
    """Make the entry's texts these, without those that are empty; those that it has stay in their place."""
    for name in texts:
        if not texts[name]:
            entry.pop(name, None)
    for place, (name, text) in enumerate((name, text) for name, text in texts.items() if text):
        if name in entry:
            entry[name] = text
        else:
            entry.insert(place, name, text)


def _append(section: CommentedMap, key: str, entry: CommentedMap) -> None:
    """Add an entry behind the last one, before the lines of comments that follow that."""
    last = next(reversed(section), None)
    section[key] = entry
    comments = section.ca.items.get(last)
    if comments and comments[2]:
        own, _, following = comments[2].value.partition("\n")
        if following:
            comments[2].value = f"{own}\n"
            section.ca.items[key] = [None, None, CommentToken(f"\n{following}", CommentMark(0), None), None]


def number(value: float | None, source: Source = "fitted") -> str:
    """A value as profiles have it, in four digits, or all of those that the user gave; "" for none."""
    if value is None:
        return ""
    text = f"{value:.4g}"
    return f"{value:.15g}" if source == "assumed" and float(text) != value else text


def quoted(text: str) -> str:
    """A text that is written in double quotes; "" stays empty."""
    return DoubleQuotedScalarString(text) if text else ""
