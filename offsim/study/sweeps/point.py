"""A point of a sweep as bytes, everything that its result depends on, with their hash as its name; and simulating it.

Workers need nothing but these bytes: no files, and no scenario.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.packaged import offsim_version
from offsim.inputs.validate import validate
from offsim.platform.hardware import HardwareProfile
from offsim.results.simulate import simulate
from offsim.scenario import Scenario, scenario_profile
from offsim.schedulers.registry import find_scheduler, scenario_scheduler
from offsim.study.sweeps.axes import Position, Sweep

KEPT_PROFILES = 256

_UNUSED = {"provenance", "description", "validated"}
"""Of a profile: what no simulation reads."""


class Point(NamedTuple):
    """`id` is the SHA-256 of the payload; of a point that cannot be simulated, of its values and what is wrong."""

    id: bytes
    payload: bytes = b""
    error: str = ""


def points(sweep: Sweep) -> Iterator[Point]:
    """The points of a sweep in order, made one after another."""
    resolver = _Resolver(sweep)
    return (resolver.point(position) for position in sweep.positions())


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
        what: dict[str, Any] = {
            "model": scenario.model.model_dump(),
            "training": scenario.training.model_dump(),
            "placement": scenario.placement.model_dump(),
            "scheduler": {"name": scenario.scheduler.name, **options.model_dump()},
        }
        if scenario.price_per_gpu_hour is not None:
            what["price_per_gpu_hour"] = scenario.price_per_gpu_hour
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


def simulate_point(payload: bytes) -> bytes:
    """Simulate one point and return its outcome as JSON; what goes wrong with it is an outcome too.

    Raises InputError where the worker's offsim is another version than the one that made the payload.
    """
    version, profile, what = payload.split(b"\n")
    if version != offsim_version().encode():
        problem = f"a worker has offsim {offsim_version()}, expected {version.decode()} as where the sweep was started"
        raise InputError(problem)
    try:
        hardware = _profile(profile)
        scenario = Scenario.model_validate({"hardware": hardware.name, **orjson.loads(what)})
        return orjson.dumps(_outcome(scenario, hardware))
    except InputError as error:
        return failure(error.problem)
    except Exception as error:  # a scheduler of somebody's own may raise anything
        return failure(f"{type(error).__name__}: {error}")


def failure(message: str) -> bytes:
    """Return the outcome of a point that has none but this message."""
    return orjson.dumps({"error": message})


def _outcome(scenario: Scenario, hardware: HardwareProfile) -> dict[str, Any]:
    result = simulate(scenario, profile=hardware)
    return {
        **result.figures(),
        "gpu_capacity_bytes": max(peak.capacity_bytes for peak in result.peaks if peak.kind == "gpu"),
        "host_capacity_bytes": next(peak.capacity_bytes for peak in result.peaks if peak.tier == "host"),
        "limits_s": result.limits_s if result.fits else None,
        "notes": "; ".join(result.notes) or None,
        "verdict": None if result.fits else str(result.verdict),
    }


@lru_cache(KEPT_PROFILES)
def _profile(values: bytes) -> HardwareProfile:
    return HardwareProfile(description="", validated=False, **orjson.loads(values))
