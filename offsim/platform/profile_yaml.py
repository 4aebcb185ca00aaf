"""Profiles as YAML, complete in one file: what is inherited is written out, with where it comes from."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from offsim.inputs.units import unit_of
from offsim.platform.hardware import HardwareProfile, Provenance


def profile_yaml(profile: HardwareProfile, comment: str = "") -> str:
    """The text of a file that gives this profile, under a comment. Values that are defaults are left out."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [
        f"name: {_quoted(profile.name)}",
        f"description: {_quoted(profile.description)}",
        f"gpus_per_node: {profile.gpus_per_node}",
        f"validated: {_quoted(profile.validated)}",
    ]
    if profile.runs:
        lines += ["", "runs:", *(f"  {name}: {_quoted(options)}" for name, options in profile.runs.items())]
    for name, section in profile.sections().items():
        lines += _section(profile, name, section)
    return "\n".join(lines) + "\n"


def _section(profile: HardwareProfile, name: str, section: BaseModel) -> list[str]:
    lines = []
    for field, value in section.model_dump(exclude_defaults=True).items():
        if isinstance(value, str):
            lines.append(f"  {field}: {value}")
    for field, value in section.model_dump().items():
        origin = profile.provenance.get(f"{name}.{field}")
        if origin is not None:
            lines.append(f"  {field}: {_entry(field, value, origin)}")
    return ["", f"{name}:", *lines] if lines else []


def _entry(field: str, value: float, origin: Provenance) -> str:
    known = {"value": _number(value), "low": _number(origin.low), "high": _number(origin.high)}
    known |= {"unit": {"1": '"1"'}.get(unit_of(field), unit_of(field)), "source": origin.source}
    known |= {key: _quoted(text) for key, text in (("error", origin.error), ("note", origin.note)) if text}
    return f"{{{', '.join(f'{key}: {text}' for key, text in known.items() if text)}}}"


def _number(value: float | None) -> str:
    if value is None or value == 0 or 1e-3 <= abs(value) < 1e6:
        return "" if value is None else f"{value:.12g}"
    mantissa, exponent = f"{value:.11e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
