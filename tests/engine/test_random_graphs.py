"""End times of whole graphs of operations: those of SimGrid, and those of a solver in exact arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random

import pytest

from offsim.engine import Engine, Operation, Resource, Stream

SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's python3-simgrid is installed for this one alone."""
TICKS_PER_S = 2**20
"""Durations are whole ticks: SimGrid's flows have whole bytes."""
CLOSE = 1e-12
"""Relative; observed is 2e-15."""


@dataclass(frozen=True)
class Activity:
    """Work on a stream; `demands` are whole units of a resource per second, `after` indices of earlier activities."""

    stream: int
    ticks: int
    demands: dict[str, int]
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Activities in the order in which they are enqueued; capacities in units per second."""

    capacities: dict[str, float]
    activities: tuple[Activity, ...]
    unit: float = 1.0
    """What the engine under test takes for a unit."""

    def predecessors(self) -> list[list[int]]:
        """The activities that each one waits for: the one before it on its stream, and those that it names."""
        last: dict[int, int] = {}
        found = []
        for index, activity in enumerate(self.activities):
            before = last.get(activity.stream)
            found.append([*activity.after, *([] if before is None else [before])])
            last[activity.stream] = index
        return found


def end_times_of_offsim(graph: Graph) -> list[float]:
    """The only place here that knows how operations are given to the engine."""
    engine = Engine()
    resources = {name: Resource(name, capacity * graph.unit) for name, capacity in graph.capacities.items()}
    streams = {activity.stream: Stream(f"stream {activity.stream}") for activity in graph.activities}
    operations: list[Operation] = []
    for index, activity in enumerate(graph.activities):
        usage = tuple((resources[name], demand * graph.unit) for name, demand in activity.demands.items())
        seconds = activity.ticks / TICKS_PER_S
        operation = Operation(streams[activity.stream], "work", f"operation {index}", seconds, usage)
        operations.append(engine.enqueue(operation, [operations[i] for i in activity.after]))
    engine.env.run()
    return [operation.ended_at for operation in operations]


def exact_end_times(graph: Graph) -> list[float]:
    """From one end to the next, all fractions computed anew each time, in rational numbers."""
    predecessors = graph.predecessors()
    remaining = [Fraction(activity.ticks, TICKS_PER_S) for activity in graph.activities]
    ended: dict[int, Fraction] = {}
    now = Fraction(0)
    while len(ended) < len(graph.activities):
        ready = [i for i in range(len(remaining)) if i not in ended and all(p in ended for p in predecessors[i])]
        over = [i for i in ready if remaining[i] == 0]
        if over:
            ended |= dict.fromkeys(over, now)
            continue
        speeds = exact_fractions(graph, ready)
        step = min(remaining[i] / speed for i, speed in speeds.items())
        now += step
        for i, speed in speeds.items():
            remaining[i] -= step * speed
    return [float(ended[i]) for i in range(len(remaining))]


def exact_fractions(graph: Graph, running: Sequence[int]) -> dict[int, Fraction]:
    """Fractions of full speed, raised together until a resource is full, whose users then stay at that level."""
    free = set(running)
    fixed: dict[int, Fraction] = {}
    while free:
        levels = {}
        for name, capacity in graph.capacities.items():
            demands = {i: graph.activities[i].demands.get(name, 0) for i in running}
            taken = sum((fixed[i] * demands[i] for i in fixed), Fraction(0))
            if wanted := sum(demands[i] for i in free):
                levels[name] = (Fraction(capacity) - taken) / wanted
        level = min(levels.values(), default=Fraction(1))
        if level >= 1:
            return fixed | dict.fromkeys(free, Fraction(1))
        full = [name for name in levels if levels[name] == level]
        stopped = {i for i in free if any(name in graph.activities[i].demands for name in full)}
        fixed |= dict.fromkeys(stopped, level)
        free -= stopped
    return fixed


def end_times_of_simgrid(graphs: Sequence[Graph]) -> list[list[float]]:
    documents = [
        {
            "bytes_per_s": TICKS_PER_S,
            "capacities": graph.capacities,
            "activities": [
                {"bytes": activity.ticks, "demands": activity.demands, "after": after}
                for activity, after in zip(graph.activities, graph.predecessors(), strict=True)
            ],
        }
        for graph in graphs
    ]
    script = Path(__file__).with_name("simgrid_reference.py")
    run = subprocess.run(
        [SYSTEM_PYTHON, str(script)], input=json.dumps(documents), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found: list[list[float]] = json.loads(run.stdout)
    return found


@cache
def has_simgrid() -> bool:
    try:
        run = subprocess.run([SYSTEM_PYTHON, "-c", "import simgrid"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return run.returncode == 0


@pytest.fixture
def simgrid() -> Callable[[Sequence[Graph]], list[list[float]]]:
    """Skips where SimGrid is not installed, unless OFFSIM_SIMGRID is "required"."""
    if not has_simgrid():
        required = os.environ.get("OFFSIM_SIMGRID") == "required"
        (pytest.fail if required else pytest.skip)(f"{SYSTEM_PYTHON} cannot import simgrid")
    return end_times_of_simgrid


def random_graph(seed: int, most: int) -> Graph:
    """Up to `most` activities, each on up to three of four resources, of which some are contended most of the time."""
    random = Random(seed)
    names = ["link", "memory", "cores", "gpu"][: random.randint(1, 4)]
    streams = random.randint(3, 12)
    activities = []
    for index in range(random.randint(3, most)):
        used = random.sample(names, random.randint(1, min(3, len(names))))
        ticks = random.choice(
            [0, random.randint(1, 12) * TICKS_PER_S, random.randint(1, 2**24), random.randint(1, 2**24)]
        )
        after = random.sample(range(index), min(index, random.choice([0, 0, 0, 1, 2])))
        demands = {name: random.randint(1, 12) for name in used}
        activities.append(Activity(random.randrange(streams), ticks, demands, tuple(after)))
    capacities = {name: random.uniform(6, 20) for name in names}
    return Graph(capacities, tuple(activities), unit=10.0 ** random.uniform(-3, 12))


def close(times: Sequence[float]) -> object:
    return pytest.approx(times, rel=CLOSE, abs=0.0)


S = TICKS_PER_S
BY_HAND = [
    # two on one resource: 5/7 of full speed until the second ends, then full speed
    (Graph({"a": 5.0}, (Activity(0, 2 * S, {"a": 4}), Activity(1, 3 * S // 2, {"a": 3}))), [2.6, 2.1]),
    # both on b at 5/8, which leaves the one that uses a alone its full speed
    (
        Graph(
            {"a": 7.0, "b": 2.5},
            (Activity(0, S, {"a": 4}), Activity(1, 5 * S, {"a": 3, "b": 2}), Activity(2, 5 * S, {"b": 2})),
        ),
        [1.0, 8.0, 8.0],
    ),
    # in order on a stream; an activity without work ends when it is ready
    (
        Graph({"a": 2.0}, (Activity(0, S, {"a": 2}), Activity(0, S, {"a": 2}), Activity(1, 0, {"a": 1}, (0,)))),
        [1.0, 2.0, 1.0],
    ),
]


@pytest.mark.parametrize(("graph", "expected"), BY_HAND)
def test_graphs_worked_out_by_hand(graph: Graph, expected: list[float]) -> None:
    assert end_times_of_offsim(graph) == close(expected)
    assert exact_end_times(graph) == close(expected)


def test_simgrid_on_graphs_worked_out_by_hand(simgrid: Callable[[Sequence[Graph]], list[list[float]]]) -> None:
    for times, (_, expected) in zip(simgrid([graph for graph, _ in BY_HAND]), BY_HAND, strict=True):
        assert times == close(expected)


@pytest.mark.parametrize("seed", range(60))
def test_end_times_equal_exact_ones(seed: int) -> None:
    graph = random_graph(seed, most=15)
    assert end_times_of_offsim(graph) == close(exact_end_times(graph))


def test_end_times_equal_those_of_simgrid(simgrid: Callable[[Sequence[Graph]], list[list[float]]]) -> None:
    graphs = [random_graph(seed, most=50) for seed in range(120)]
    for seed, (graph, times) in enumerate(zip(graphs, simgrid(graphs), strict=True)):
        assert end_times_of_offsim(graph) == close(times), f"random_graph({seed}, most=50)"
