"""Changes of a profile by a scenario: values in place of its own, factors of them, or another part."""

from __future__ import annotations

from collections.abc import Mapping

from offsim.inputs.document import Document, Mark, dotted
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
    data = profile.model_dump() | {"validated": False}
    marks: dict[KeyPath, Mark] = {}
    named = []
    known = {name: type(model) for name, model in profile.sections().items()}
    for section, changes in changes_by_section.items():
        at: KeyPath = ("hardware_changes", section)
        if section not in known:
            problem = f"unknown key '{section}' in hardware_changes{suggestion(section, known)}"
            raise document.error(at, problem)
        fields = [name for name, info in known[section].model_fields.items() if not is_word(info.annotation)]
        values = data["tiers"][section] if section in profile.tiers else data[section]
        part = changes.get(PART)
        by_part = _by_part(profile, document, section, str(part)) if part is not None else {}
        named += [f"{section} {part} ({_said(by_part)})"] if part is not None else []
        given = {field: change for field, change in changes.items() if field != PART}
        for field, change in {**by_part, **given}.items():
            path = (section, field)
            place = ("tiers", *path) if section in profile.tiers else path
            if field not in fields:
                problem = f"unknown key '{field}' in {dotted(at)}{suggestion(field, fields)}"
                raise document.error((*at, field), problem)
            old = values.get(field)
            factor = factor_of(change)
            if factor is not None and old is None:
                raise document.error((*at, field), f"profile '{profile.name}' has no value to multiply")
            values[field] = number_of(document, (*at, field), change) if factor is None else factor * old
            if field in given:
                named.append(f"{dotted(path)} {change if isinstance(change, str) else format(change, 'g')}")
            marks[place] = document.mark((*at, field))
            data["provenance"][dotted(path)] = _provenance(profile.provenance.get(dotted(path)), factor)
        marks[section,] = document.mark(at)
    data["name"] = f"{profile.name} with {', '.join(named)}"
    return validate(Document(data, marks), HardwareProfile)


def _by_part(profile: HardwareProfile, document: Document, section: str, part: str) -> dict[str, float | str]:
    from offsim.platform.parts import changes_by  # seldom needed, and slow to import

    return changes_by(profile, document, section, part)


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


def _provenance(old: Provenance | None, factor: float | None) -> Provenance:
    if factor is None or old is None:
        return Provenance(source="assumed", note="set by the scenario")
    bounds = {name: None if bound is None else factor * bound for name, bound in (("low", old.low), ("high", old.high))}
    return old.model_copy(update={**bounds, "note": f"x{factor:g} by the scenario; {old.note}".rstrip("; ")})
