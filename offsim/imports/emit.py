"""Write a scenario as a YAML file that says where each value comes from."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from offsim.inputs.errors import KeyPath
from offsim.inputs.packaged import is_path
from offsim.scenario import KEYS, Scenario

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null")


def scenario_yaml(scenario: Scenario, sources: Mapping[KeyPath, str], folder: Path) -> str:
    """The text of a file in `folder` that `offsim run` simulates like this scenario.

    `sources` says what to write behind a value; overrides say where they come from themselves.
    """
    data = {key: scenario.document.data[key] for key in ("name", *KEYS) if scenario.document.data.get(key)}
    if is_path(scenario.hardware):
        data["hardware"] = os.path.relpath(scenario.folder / scenario.hardware, folder)

    def source(path: KeyPath) -> str:
        mark = scenario.document.marks.get(path)
        if mark is None or not mark.origin:  # given from Python, as --scheduler is
            return ""
        return mark.origin if mark.origin.startswith("override ") else sources.get(path, mark.where)

    lines = _lines(data, (), source)
    width = max(len(text) for text, _ in lines)
    return "".join(f"{text:<{width}}  # {why}\n" if why else f"{text}\n" for text, why in lines)


def _lines(values: Mapping[str, Any], path: KeyPath, source: Any) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    indent = "  " * len(path)
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            below = _lines(value, here, source)
            lines += [(f"{indent}{key}:", ""), *below] if below else []
        elif value is not None:
            lines.append((f"{indent}{key}: {_scalar(value)}", " ".join(source(here).split())))
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= 1_000_000 else str(value)
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return yaml.safe_dump(value, default_style='"', width=math.inf).rstrip("\n")
    return str(value)
