"""Profile values that the user sets when calibrating, such as `host.memory_bytes=2e12`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from offsim.calibration.profile_text import ProfileValue
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import with_overrides
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile, TierSpec
from offsim.platform.profiles import is_word

COUNT = "gpus_per_node"


def value_names(profile: HardwareProfile) -> list[str]:
    """The dotted names of the values that a profile may have, its tiers included."""
    sections: dict[str, type[BaseModel]] = FIXED_SECTIONS | dict.fromkeys(profile.tiers, TierSpec)
    return [
        COUNT,
        *(
            f"{name}.{field}"
            for name, section in sections.items()
            for field, info in section.model_fields.items()
            if not is_word(info.annotation)
        ),
    ]


def set_values(base: HardwareProfile, assignments: Sequence[str]) -> dict[str, ProfileValue]:
    """The values that `NAME=VALUE` texts set; raise InputError for one that a profile could not have."""
    known = value_names(base)
    names = {text: text.partition("=")[0].strip() for text in assignments}
    for text, name in names.items():
        if "=" in text and name not in known:
            raise InputError(f"unknown value '{name}' of a profile{suggestion(name, known)}", f"--set '{text}'")
    data = base.model_dump()
    document = with_overrides(Document({**data, **data["tiers"]}), assignments)
    values: dict[str, ProfileValue] = {}
    for name in names.values():
        path = tuple(name.split("."))
        value: Any = document.data
        for part in path:
            value = value[part]
        value = document.without_unit(path, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise document.unexpected(path, "a number")
        values[name] = ProfileValue(value, None, None, "assumed", note="set when calibrating")
    tiers = {name: document.data.pop(name) for name in base.tiers}
    validate(Document({**document.data, "tiers": tiers}, document.marks), HardwareProfile)
    return values


def with_values(profile: HardwareProfile, values: Mapping[str, float]) -> HardwareProfile:
    """The profile with these values, by dotted name, in place of its own."""
    own: dict[str, float] = {}
    sections: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (sections.setdefault(section, {}) if section else own)[key] = value
    return HardwareProfile(**profile.with_values(sections).model_dump() | own)
