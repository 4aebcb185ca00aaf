"""Profile values that the user sets when calibrating, such as `host.memory_bytes=2e12`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from offsim.calibration.profile_text import ProfileValue
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import with_overrides
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile

COUNT = "gpus_per_node"
NAMES = (
    COUNT,
    *(f"{name}.{field}" for name, section in FIXED_SECTIONS.items() for field in section.model_fields),
)
"""The values of a profile by dotted name."""


def set_values(base: HardwareProfile, assignments: Sequence[str]) -> dict[str, ProfileValue]:
    """The values that `NAME=VALUE` texts set; raise InputError for one that a profile could not have."""
    names = {text: text.partition("=")[0].strip() for text in assignments}
    for text, name in names.items():
        if "=" in text and name not in NAMES:
            raise InputError(f"unknown value '{name}' of a profile{suggestion(name, NAMES)}", f"--set '{text}'")
    document = with_overrides(Document(base.model_dump()), assignments)
    values: dict[str, ProfileValue] = {}
    for name in names.values():
        path = tuple(name.split("."))
        value: Any = document.data
        for part in path:
            value = value[part]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise document.unexpected(path, "a number")
        values[name] = ProfileValue(value, None, None, "assumed", note="set when calibrating")
    validate(document, HardwareProfile)
    return values


def with_values(profile: HardwareProfile, values: Mapping[str, float]) -> HardwareProfile:
    """The profile with these values, by dotted name, in place of its own."""
    own: dict[str, float] = {}
    sections: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (sections.setdefault(section, {}) if section else own)[key] = value
    return HardwareProfile(**profile.with_values(sections).model_dump() | own)
