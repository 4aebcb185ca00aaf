"""A point of a sweep as what is simulated: everything its result depends on, as bytes, and their hash as its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson

from offsim.inputs.errors import InputError
from offsim.inputs.packaged import offsim_version
from offsim.inputs.yaml_input import Document, validate
from offsim.platform.profiles import scenario_profile
from offsim.scenario import Scenario
from offsim.schedulers.registry import find_scheduler, scenario_scheduler
from offsim.study.sweeps.axes import Position, positions
from offsim.study.sweeps.sweep_file import Sweep

ID_BYTES = 32
KEPT_PROFILES = 256

_UNUSED = {"provenance", "description", "validated"}
"""Of a profile: what no simulation reads."""


@dataclass(frozen=True, slots=True)
class Point:
    """`id` is the SHA-256 of the payload; of a point that cannot be simulated, of its values and what is wrong."""

    id: bytes
    payload: bytes = b""
    error: str = ""


def points(sweep: Sweep) -> Iterator[Point]:
    """The points of a sweep in order, made one after another."""
    resolver = _Resolver(sweep)
    return (resolver.point(position) for position in positions(sweep.axes, sweep.skip))


class _Resolver:
    """Lays the values of a point over its base."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._version = offsim_version().encode()
        self._bases = [base.model_dump(exclude={"name"}) for base in sweep.bases]
        # A section before its parts; the scheduler before its options.
        places = [
            (column.split("."), number, place)
            for number, axis in enumerate(sweep.axes[1:], start=1)
            for place, column in enumerate(axis.columns)
        ]
        self._places = sorted(places, key=lambda item: (len(item[0]), item[0] != ["scheduler", "name"]))
        self._profile_of = lru_cache(KEPT_PROFILES)(self._read_profile)

    def point(self, position: Position) -> Point:
        data = self._data(position)
        try:
            scenario = validate(Document(data), Scenario)
            _, options = scenario_scheduler(scenario)
            profile = self._profile_of(scenario.hardware, orjson.dumps(scenario.hardware_changes), position[0] or 0)
        except InputError as error:
            values = json.dumps(data, sort_keys=True, default=str).encode()
            return Point(_hash(self._version, values, error.problem.encode()), error=error.problem)
        what = {
            "model": scenario.model.model_dump(),
            "training": scenario.training.model_dump(),
            "scheduler": {"name": scenario.scheduler.name, **options.model_dump()},
        }
        parts = (self._version, profile, orjson.dumps(what, option=orjson.OPT_SORT_KEYS))
        return Point(_hash(*parts), b"\n".join(parts))

    def _data(self, position: Position) -> dict[str, Any]:
        data = dict(self._bases[position[0] or 0])
        for path, number, place in self._places:
            at = position[number]
            if at is None:
                continue
            value = self._sweep.axes[number].values[at][place]
            section = data
            for part in path[:-1]:
                section[part] = dict(section.get(part) or {})
                section = section[part]
            if path == ["scheduler", "name"]:
                known = find_scheduler(value).Options.model_fields
                data["scheduler"] = {key: option for key, option in section.items() if key in known}
                section = data["scheduler"]
            section[path[-1]] = value
        return data

    def _read_profile(self, hardware: str, changes: bytes, base: int) -> bytes:
        scenario = self._sweep.bases[base].model_copy(
            update={"hardware": hardware, "hardware_changes": orjson.loads(changes)}
        )
        profile = scenario_profile(scenario).model_dump(exclude=_UNUSED)
        return orjson.dumps(profile, option=orjson.OPT_SORT_KEYS)


def _hash(*parts: bytes) -> bytes:
    return sha256(b"\n".join(parts)).digest()


def cells(sweep: Sweep, position: Position) -> Mapping[str, Any]:
    """Column -> what the table shows of a point."""
    shown: dict[str, Any] = {}
    for axis, at in zip(sweep.axes, position, strict=True):
        row = axis.cells[at] if at is not None else (None,) * len(axis.columns)
        shown.update(zip(axis.columns, row, strict=True))
    return shown
