"""Programs for the engine, and what its records must add up to, computed from the records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

from offsim.engine import Engine, Operation, Resource, Stream
from offsim.results.limits import spans

CLOSE = 1e-9

Demands = tuple[tuple[str, float], ...]
"""(name of a resource, rate) pairs."""


def work(
    stream: Stream, duration: float, usage: Iterable[tuple[Resource, float]] = (), name: str = "work"
) -> Operation:
    """An operation that only takes time and rates of resources."""
    return Operation(stream, "work", name, duration, tuple(usage))


def enqueue_at(
    engine: Engine, start: float, duration: float, usage: Iterable[tuple[Resource, float]] = (), name: str = "work"
) -> Operation:
    """An operation on a stream of its own that becomes ready at `start`."""
    stream = Stream(name)
    if start > 0:
        engine.enqueue(work(stream, start, name="delay"))
    return engine.enqueue(work(stream, duration, usage, name))


def times(*operations: Operation) -> list[tuple[float, float]]:
    """When they start and end."""
    return [(operation.started_at, operation.ended_at) for operation in operations]


def work_done(operation: Operation) -> float:
    """Seconds at full speed that the operation got."""
    return sum((s.end - s.start) * s.fraction for s in spans(operation))


def rate_at(operations: Sequence[Operation], resource: Resource, time: float) -> float:
    """What the operations together take of the resource at an instant."""
    return sum(
        span.fraction * rate
        for operation in operations
        for used, rate in operation.usage
        if used is resource
        for span in spans(operation)
        if span.start <= time < span.end
    )


def instants(operations: Sequence[Operation]) -> list[float]:
    """An instant within each interval in which nothing changes."""
    times = sorted({time for o in operations for s in spans(o) for time in (s.start, s.end)})
    return [(a + b) / 2 for a, b in pairwise(times) if b - a > 1e-9 * b]


@dataclass(frozen=True)
class Step:
    """An operation of a random program; `after` are indices of earlier ones."""

    stream: int
    duration: float
    demands: Demands = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """Resources and operations in the order in which they are enqueued."""

    capacities: dict[str, float]
    steps: tuple[Step, ...] = field(default=())

    def run(self, configure: Callable[[Operation, int], None] = lambda operation, index: None) -> Ran:
        """Enqueue all at time zero and run to the end."""
        engine = Engine()
        resources = {name: Resource(name, capacity) for name, capacity in self.capacities.items()}
        streams: dict[int, Stream] = {}
        operations: list[Operation] = []
        for index, step in enumerate(self.steps):
            stream = streams.setdefault(step.stream, Stream(f"stream {step.stream}"))
            usage = [(resources[name], rate) for name, rate in step.demands]
            operation = work(stream, step.duration, usage, f"operation {index}")
            configure(operation, index)
            operations.append(engine.enqueue(operation, [operations[i] for i in step.after]))
        engine.env.run()
        return Ran(engine, list(resources.values()), operations)


class Ran(NamedTuple):
    """What a program left."""

    engine: Engine
    resources: list[Resource]
    operations: list[Operation]

    @property
    def makespan(self) -> float:
        """When the last operation ended."""
        return max((operation.ended_at for operation in self.operations), default=0.0)


DURATIONS = st.one_of(st.just(0.0), st.integers(1, 12).map(float), st.floats(1e-6, 1e3))
RATES = st.one_of(st.integers(1, 12).map(float), st.floats(1e-3, 1e6))


@st.composite
def programs(draw: st.DrawFn, most: int = 12) -> Program:
    """Some streams, some resources, some events between streams."""
    names = ["link", "memory", "cores"][: draw(st.integers(1, 3))]
    capacities = {name: draw(RATES) for name in names}
    steps = []
    for index in range(draw(st.integers(1, most))):
        used = draw(st.lists(st.sampled_from(names), unique=True))
        # Rates near the capacity, so that one operation alone may or may not fill a resource.
        demands = tuple((name, capacities[name] * draw(st.floats(0.05, 1.0))) for name in used)
        after = draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []
        steps.append(Step(draw(st.integers(0, 3)), draw(DURATIONS), demands, tuple(after)))
    return Program(capacities, tuple(steps))
