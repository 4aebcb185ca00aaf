"""A point of a sweep as bytes, everything that its result depends on, with their hash as its name; and simulating it.

Workers need nothing but these bytes: no files, and no scenario.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

import orjson

from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.packaged import offsim_version
from offsim.inputs.validate import validate
from offsim.platform.changes import PART, with_changes
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import load_profile
from offsim.programs.run import no_garbage_collection
from offsim.results.machines import TAPED_FROM, Machines
from offsim.results.result import Result
from offsim.results.simulate import result_of, simulate
from offsim.scenario import Scenario
from offsim.schedulers.registry import find_scheduler
from offsim.simulation import as_given, what_runs
from offsim.study.sweeps.axes import Position, Sweep
from offsim.study.sweeps.fields import field_model

KEPT_PROFILES = 256
KEPT_SCENARIOS = 4
SORTED_TOGETHER, ALIKE_TOGETHER = 10_000, 1_000
"""Points of which those of the same scenario follow each other, and those that run the same."""
RETURNS_AFTER_S = 0.2
"""After this time a worker hands back what it has."""

_CHANGES = "hardware_changes"
_UNUSED = {"provenance", "description", "validated"}
"""Of a profile: what no simulation reads."""


class Task(NamedTuple):
    """What to simulate, as JSON. Points that run the same on the same hardware have the same `scenario`."""

    scenario: bytes
    profile: bytes


class Point(NamedTuple):
    """`id` is the SHA-256 of scenario and profile; of a point that cannot be simulated, of its values and the error."""

    number: int
    """Its place in the order of the sweep."""
    id: bytes
    task: Task | None = None
    error: str = ""


def points(sweep: Sweep) -> Iterator[Point]:
    """The points of a sweep, made some at a time, those that run the same together."""
    _machines.cache_clear()  # a schedule of this process may have changed since the sweep before
    resolver = _Resolver(sweep)
    numbered = enumerate(sweep.positions())
    while some := list(islice(numbered, SORTED_TOGETHER)):
        some.sort(key=lambda one: [-1 if at is None else at for at in resolver.apart_from_changes(one[1])])
        made = (resolver.point(number, position) for number, position in some)
        if resolver.placing:
            while few := list(islice(made, ALIKE_TOGETHER)):
                yield from _alike_together(few)
        else:
            yield from made


def _alike_together(made: Sequence[Point]) -> Iterator[Point]:
    groups: dict[bytes | None, dict[Task | None, list[Point]]] = {}
    for point in made:
        tasks = groups.setdefault(point.task and point.task.scenario, {})
        tasks.setdefault(point.task, []).append(point)
    return (point for tasks in groups.values() for same in tasks.values() for point in same)


class _Resolver:
    """Lays the values of a point over its base; checks anew what the point before does not share."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._version = offsim_version().encode()
        self._bases = [base.model_dump(exclude={"name"}) for base in sweep.bases]
        sections = [{column.split(".")[0] for column in axis.columns} for axis in sweep.axes]
        self._not_changes = [found != {_CHANGES} for found in sections]
        self.placing = any(found & {"scheduler", "placement"} for found in sections)
        """Whether scenarios that differ may run the same."""
        self._hardware = [number == 0 or bool(found & {"hardware", _CHANGES}) for number, found in enumerate(sections)]
        # A section before its parts; the scheduler before its options.
        places = [
            (column.split("."), number, place)
            for number, axis in enumerate(sweep.axes[1:], start=1)
            for place, column in enumerate(axis.columns)
        ]
        self._places = sorted(places, key=lambda item: (len(item[0]), item[0] != ["scheduler", "name"]))
        self._scenario_at = lru_cache(1)(self._scenario)
        self._profile_at = lru_cache(KEPT_PROFILES)(self._profile)
        self._load = lru_cache(KEPT_PROFILES)(load_profile)

    def apart_from_changes(self, position: Position) -> Position:
        """The position without the axes that change nothing but values of the hardware."""
        return tuple([at if kept else None for at, kept in zip(position, self._not_changes, strict=True)])

    def point(self, number: int, position: Position) -> Point:
        on_hardware = tuple([at if kept else None for at, kept in zip(position, self._hardware, strict=True)])
        try:
            given, scenario = self._scenario_at(self.apart_from_changes(position))
            task = Task(scenario, self._profile_at(on_hardware))
        except InputError as error:
            values = json.dumps(self._data(position), sort_keys=True, default=str).encode()
            return Point(number, _hash(self._version, values, error.problem.encode()), error=error.problem)
        return Point(number, _hash(self._version, task.profile, given), task)

    def _scenario(self, position: Position) -> tuple[bytes, bytes]:
        """The scenario as it is given, and as all that run the same have it."""
        scenario = validate(Document(self._data(position)), Scenario)
        whole = orjson.dumps(as_given(scenario), option=orjson.OPT_SORT_KEYS)
        if self.placing:
            with suppress(Exception):  # to simulate it as it is says what is wrong
                return whole, orjson.dumps(what_runs(scenario), option=orjson.OPT_SORT_KEYS)
        return whole, whole

    def _profile(self, position: Position) -> bytes:
        data = self._data(position)
        document = Document(data)
        checked = validate(document, field_model(Scenario, _CHANGES), {_CHANGES: data[_CHANGES]})
        profile = self._load(data["hardware"], self._sweep.bases[position[0] or 0].folder)
        if changes := getattr(checked, _CHANGES):
            profile = with_changes(profile, changes, document)
        return orjson.dumps(profile.model_dump(exclude=_UNUSED), option=orjson.OPT_SORT_KEYS)

    def _data(self, position: Position) -> dict[str, Any]:
        data = dict(self._bases[position[0] or 0])
        for path, number, place in self._places:
            at = position[number]
            if at is None:
                continue
            value = self._sweep.axes[number].values[at][place]
            section = data
            for part in path[:-1]:
                given = section.get(part) or {}
                section[part] = {PART: given} if isinstance(given, str) else dict(given)
                section = section[part]
            if path == ["scheduler", "name"]:
                known = find_scheduler(value).Options.model_fields
                data["scheduler"] = {key: option for key, option in section.items() if key in known}
                section = data["scheduler"]
            section[path[-1]] = value
        return data


def _hash(*parts: bytes) -> bytes:
    return sha256(b"\n".join(parts)).digest()


def simulate_tasks(version: str, tasks: Sequence[Task]) -> list[bytes]:
    """Simulate points and return their outcomes as JSON; what goes wrong with one is an outcome too.

    Where they take long, returns the outcomes of the first only. Raises InputError where the worker's offsim is not of
    the `version` that made the tasks.
    """
    if version != offsim_version():
        problem = f"a worker has offsim {offsim_version()}, expected {version} as where the sweep was started"
        raise InputError(problem)
    until = perf_counter() + RETURNS_AFTER_S
    outcomes: list[bytes] = []
    known: dict[Task, bytes] = {}
    machines = Counter(task.scenario for task in set(tasks))
    with no_garbage_collection():
        for task in tasks:
            if task not in known:
                known[task] = _outcome(task, machines[task.scenario] >= TAPED_FROM)
            outcomes.append(known[task])
            if perf_counter() > until:
                return outcomes
    return outcomes


@lru_cache(KEPT_SCENARIOS)
def _machines(given: bytes) -> tuple[Scenario, Machines]:
    scenario = Scenario.model_validate({"hardware": "of each task", **orjson.loads(given)})
    return scenario, Machines(scenario)


def _outcome(task: Task, many: bool) -> bytes:
    scenario, machines = _machines(task.scenario)
    profile = _profile(task.profile)
    try:
        result = result_of(scenario, machines.on(profile), profile) if many else simulate(scenario, profile=profile)
        return orjson.dumps(_figures(result))
    except InputError as error:
        return failure(error.problem)
    except Exception as error:  # a scheduler of somebody's own may raise anything
        return failure(f"{type(error).__name__}: {error}")


def failure(message: str) -> bytes:
    """Return the outcome of a point that has none but this message."""
    return orjson.dumps({"error": message})


def _figures(result: Result) -> dict[str, Any]:
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
