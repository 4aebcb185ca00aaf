"""Changes of a profile by a scenario: values in place of its own, factors of them, or another part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offsim.inputs.document import Document, dotted
from offsim.inputs.errors import Expected, KeyPath, suggestion
from offsim.inputs.units import without_unit
from offsim.inputs.validate import validate
from offsim.platform.hardware import HardwareProfile, Provenance
from offsim.platform.profiles import is_word

PART = "part"
"""The key that names another part of the catalogue for a section; what it changes, other keys change further."""


def with_changes(
    profile: HardwareProfile, changes_by_section: Mapping[str, Mapping[str, float | str]], document: Document
) -> HardwareProfile:
    """Return the profile with values in place of its own, or factors of them as `x2`.

    `document` has them under `hardware_changes`, to point at in errors.
    """
    models = profile.sections()
    changed: dict[str, dict[str, Any]] = {}
    provenance = dict(profile.provenance)
    named = []
    for section, changes in changes_by_section.items():
        at: KeyPath = ("hardware_changes", section)
        if section not in models:
            problem = f"unknown key '{section}' in hardware_changes{suggestion(section, models)}"
            raise document.error(at, problem)
        model = type(models[section])
        values = dict(models[section])
        place: KeyPath = ("tiers", section) if section in profile.tiers else (section,)
        marks = {place: document.mark(at)}
        part = changes.get(PART)
        by_part: dict[str, float | str] = {}
        if part is not None:
            from offsim.platform.parts import changes_by  # seldom needed, and slow to import

            by_part = changes_by(profile, document, section, str(part))
            named.append(f"{section} {part} ({_said(by_part)})")
        given = {field: change for field, change in changes.items() if field != PART}
        for field, change in {**by_part, **given}.items():
            path = (section, field)
            info = model.model_fields.get(field)
            if info is None or is_word(info.annotation):
                fields = [name for name, info in model.model_fields.items() if not is_word(info.annotation)]
                problem = f"unknown key '{field}' in {dotted(at)}{suggestion(field, fields)}"
                raise document.error((*at, field), problem)
            old = values[field]
            factor = factor_of(change)
            if factor is not None and old is None:
                raise document.error((*at, field), f"profile '{profile.name}' has no value to multiply")
            values[field] = number_of(document, (*at, field), change) if factor is None else factor * old
            if field in given:
                named.append(f"{dotted(path)} {change if isinstance(change, str) else format(change, 'g')}")
            marks[(*place, field)] = document.mark((*at, field))
            provenance[dotted(path)] = _provenance(profile.provenance.get(dotted(path)), factor)
        data = {"tiers": {section: values}} if section in profile.tiers else {section: values}
        changed[section] = dict(validate(Document(data, marks), model, values, place))
    name = f"{profile.name} with {', '.join(named)}"
    update = {"name": name, "provenance": provenance, "validated": False}
    return profile.with_values(changed).model_copy(update=update)


def factor_of(change: float | str) -> float | None:
    """What `x2` multiplies by; None for a value, or text that is no factor."""
    try:
        return float(change[1:]) if isinstance(change, str) and change.startswith("x") else None
    except ValueError:
        return None


def number_of(document: Document, at: KeyPath, change: float | str) -> float:
    """The value that a change, written at `at`, gives in place of a profile's: a number, or text with its unit."""
    factor = "or a factor such as x2"
    try:
        return float(without_unit(str(at[-1]), change))
    except Expected as error:
        raise document.unexpected(at, f"{error.expected}, {factor}") from None
    except ValueError:
        raise document.unexpected(at, f"a number, {factor}") from None


def _said(changes: Mapping[str, float | str]) -> str:
    """What a part changes, fields of the same factor together: `h2d_bytes_per_s, d2h_bytes_per_s x2`."""
    by_change: dict[str, list[str]] = {}
    for field, change in changes.items():
        text = f"x{float(change[1:]):.3g}" if isinstance(change, str) else f"{change:g}"
        by_change.setdefault(text, []).append(field)
    return "; ".join(f"{', '.join(fields)} {text}" for text, fields in by_change.items())


_ASSUMED = Provenance.model_construct(source="assumed", note="set by the scenario")


def _provenance(old: Provenance | None, factor: float | None) -> Provenance:
    if factor is None or old is None:
        return _ASSUMED
    bounds = {name: None if bound is None else factor * bound for name, bound in (("low", old.low), ("high", old.high))}
    return old.model_copy(update={**bounds, "note": f"x{factor:g} by the scenario; {old.note}".rstrip("; ")})
