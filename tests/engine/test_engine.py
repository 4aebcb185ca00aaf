"""Order within and between streams, collectives, and what an operation waited for."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from programs import CLOSE, Program, programs, times, work
from simpy import Event

from offsim.engine import Engine, Operation, Rendezvous, Resource, Server, Stream, Thread


@pytest.fixture
def engine() -> Engine:
    return Engine()


# Order


def test_a_stream_runs_one_operation_after_another(engine: Engine) -> None:
    stream = Stream("compute")
    first, second, third = (engine.enqueue(work(stream, duration)) for duration in (2.0, 1.0, 3.0))
    engine.env.run()
    assert times(first, second, third) == [(0, 2), (2, 3), (3, 6)]
    assert (first.waited_for, second.waited_for, third.waited_for) == (None, first, second)
    assert stream.last_ended is stream.tail is third


def test_different_streams_overlap_perfectly_where_nothing_is_shared(engine: Engine) -> None:
    for number in range(5):
        for _ in range(4):
            engine.enqueue(work(Stream(f"stream {number}"), number + 1.0))
    engine.env.run()
    assert engine.env.now == 5.0


def test_an_event_orders_one_stream_behind_another(engine: Engine) -> None:
    compute, copies = Stream("compute"), Stream("copies")
    kernel = engine.enqueue(work(compute, 3.0))
    first = engine.enqueue(work(copies, 1.0))
    second = engine.enqueue(work(copies, 1.0), after=[kernel])
    third = engine.enqueue(work(copies, 1.0))
    engine.env.run()
    assert times(first, second, third) == [(0, 1), (3, 4), (4, 5)]
    assert second.waited_for is kernel


@pytest.mark.parametrize(("slow", "released_by"), [(0, 0), (1, 1), (2, 2)])
def test_what_ended_last_is_what_an_operation_waited_for(engine: Engine, slow: int, released_by: int) -> None:
    others = [engine.enqueue(work(Stream("own"), 9.0 if i == slow else 2.0 + i)) for i in range(3)]
    waiting = engine.enqueue(work(Stream("waiting"), 1.0), after=others)
    engine.env.run()
    assert waiting.waited_for is others[released_by]
    assert waiting.started_at == 9.0


def test_what_has_ended_and_none_hold_nothing_back(engine: Engine) -> None:
    done = engine.enqueue(work(Stream("first"), 1.0))
    engine.env.run()
    later = engine.enqueue(work(Stream("second"), 1.0), after=[done, None])
    assert later.started_at == 1.0
    assert later.waited_for is None


def test_the_host_thread_released_what_nothing_else_held_back(engine: Engine) -> None:
    host, copies = Thread("host thread"), Stream("copies")
    engine.enqueue(work(host, 2.0), thread=host)
    engine.env.run()
    launched = engine.enqueue(work(copies, 5.0), thread=host)
    held_back = engine.enqueue(work(copies, 1.0), thread=host)
    engine.env.run()
    assert launched.waited_for is host.last_ended
    assert held_back.waited_for is launched


def test_an_operation_waits_twice_for_the_same_one_only_once(engine: Engine) -> None:
    stream = Stream("compute")
    first = engine.enqueue(work(stream, 1.0))
    second = engine.enqueue(work(stream, 1.0), after=[first, first])
    engine.env.run()
    assert times(second) == [(1, 2)]


@pytest.mark.parametrize("duration", [-1.0, -1e-300, float("nan")])
def test_a_duration_must_not_be_negative(duration: float) -> None:
    with pytest.raises(ValueError, match=r"broken: duration\(=.*\) must be >= 0"):
        Operation(Stream("any"), "compute", "broken", duration)


def test_operations_are_recorded_in_the_order_of_enqueueing(engine: Engine) -> None:
    streams = [Stream("a"), Stream("b")]
    host = Thread("host thread")
    for number in range(10):
        host.iteration, host.phase = number // 5, f"phase {number}"
        engine.enqueue(work(streams[number % 2], 1.0), thread=host)
    assert [(o.index, o.iteration, o.phase) for o in engine.operations] == [
        (number, number // 5, f"phase {number}") for number in range(10)
    ]


# What holds for every program


@settings(max_examples=100, deadline=None)
@given(programs())
def test_streams_are_in_order_and_nothing_starts_early_or_late(program: Program) -> None:
    operations = program.run().operations
    last: dict[int, int] = {}
    for index, (step, operation) in enumerate(zip(program.steps, operations, strict=True)):
        held_by = [*step.after, *([last[step.stream]] if step.stream in last else [])]
        last[step.stream] = index
        assert operation.started_at == max((operations[i].ended_at for i in held_by), default=0.0)
        assert operation.ended_at >= operation.started_at + operation.duration * (1 - CLOSE)
        if operation.waited_for is None:
            assert operation.started_at == 0.0  # all it is behind had ended when it was enqueued
        else:
            assert operation.waited_for in [operations[i] for i in held_by]
            assert operation.waited_for.ended_at == operation.started_at


def records(program: Program) -> list[object]:
    return [
        (
            (o.started_at, o.ended_at, o.waited_for and o.waited_for.index),
            [(time, fraction, resource and resource.name) for time, fraction, resource in o.slowdowns or ()],
        )
        for o in program.run().operations
    ]


@settings(max_examples=50, deadline=None)
@given(programs())
def test_the_same_program_leaves_the_same_records(program: Program) -> None:
    assert records(program) == records(program)


# Processes


def test_a_process_waits_for_an_operation(engine: Engine) -> None:
    stream = Stream("compute")
    seen: list[float] = []

    def host() -> Generator[Event, None, None]:
        operation = engine.enqueue(work(stream, 2.0))
        yield operation.completion(engine.env)
        seen.append(engine.env.now)
        yield operation.completion(engine.env)  # done already
        seen.append(engine.env.now)
        yield engine.enqueue(work(stream, 0.0)).completion(engine.env)  # done at once
        seen.append(engine.env.now)

    engine.env.process(host())
    engine.env.run()
    assert seen == [2.0, 2.0, 2.0]


def test_several_processes_wait_for_one_operation(engine: Engine) -> None:
    operation = engine.enqueue(work(Stream("compute"), 2.0))
    seen: list[tuple[int, float]] = []

    def host(number: int) -> Generator[Event, None, None]:
        yield operation.completion(engine.env)
        seen.append((number, engine.env.now))

    for number in range(3):
        engine.env.process(host(number))
    engine.env.run()
    assert seen == [(0, 2.0), (1, 2.0), (2, 2.0)]
    assert operation.done


# Collectives


def collective(ranks: int, duration: float) -> Iterator[Operation]:
    rendezvous = Rendezvous(ranks)
    for rank in range(ranks):
        yield Operation(Stream("reduce", rank), "all_reduce", "all-reduce", duration, rendezvous=rendezvous)


@pytest.mark.parametrize("arrivals", [[1.0, 1.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0, 7.0], [5.0]])
def test_a_collective_starts_when_the_last_rank_arrives(engine: Engine, arrivals: list[float]) -> None:
    members = list(collective(len(arrivals), 4.0))
    before = [engine.enqueue(work(m.stream, arrival)) for m, arrival in zip(members, arrivals, strict=True)]
    for member in members:
        engine.enqueue(member)
    engine.env.run()
    assert times(*members) == [(max(arrivals), max(arrivals) + 4.0)] * len(members)
    last = before[arrivals.index(max(arrivals))] if len(set(arrivals)) > 1 else before[-1]
    assert [member.waited_for for member in members] == [last] * len(members)


def test_a_rank_that_waits_for_its_peers_keeps_its_stream_occupied(engine: Engine) -> None:
    early, late = collective(2, 1.0)
    engine.enqueue(early)
    behind = engine.enqueue(work(early.stream, 1.0))
    engine.enqueue(work(late.stream, 10.0))
    engine.enqueue(late)
    engine.env.run()
    assert times(early, late, behind) == [(10, 11), (10, 11), (11, 12)]


def test_a_collective_goes_as_fast_as_each_rank_can(engine: Engine) -> None:
    """Ranks start together; each ends by its own resources."""
    members = list(collective(2, 4.0))
    compute = Resource("GPU compute 0", 1.0)
    members[0].usage = ((compute, 0.5),)
    engine.enqueue(work(Stream("compute"), 100.0, [(compute, 1.0)]))
    for member in members:
        engine.enqueue(member)
    engine.env.run()
    assert [member.ended_at for member in members] == [pytest.approx(6.0), 4.0]


# Size


@pytest.mark.parametrize("durations", [(0.0,), (1.0,), (0.0, 0.0, 0.0, 1.0)], ids=str)
@pytest.mark.parametrize("streams", [1, 3])
def test_long_chains_do_not_recurse(engine: Engine, durations: tuple[float, ...], streams: int) -> None:
    """Enqueued behind an operation that runs, so that its end releases all of them."""
    count = 10_000
    assert count > sys.getrecursionlimit()
    on = [Stream(f"stream {number}") for number in range(streams)]
    previous = engine.enqueue(work(on[0], 1.0))
    for number in range(count):
        operation = work(on[number % streams], durations[number % len(durations)])
        previous = engine.enqueue(operation, after=[previous])
    engine.env.run()
    assert previous.ended_at == 1.0 + count * sum(durations) / len(durations)
    assert all(later.waited_for is earlier for earlier, later in pairwise(engine.operations))


def test_many_that_wait_for_one_start_together_in_order(engine: Engine) -> None:
    first = engine.enqueue(work(Stream("first"), 1.0))
    waiting = [engine.enqueue(work(Stream("own"), 0.0), after=[first]) for _ in range(10_000)]
    engine.env.run()
    assert times(*waiting) == [(1.0, 1.0)] * 10_000


def test_a_closed_engine_is_freed_without_the_garbage_collector() -> None:
    """All but SimPy's environment, which refers to itself."""

    def simulate() -> None:
        engine, link, dma = Engine(), Resource("link", 1.0), Server()
        members = collective(2, 1.0)
        for number in range(200):
            stream = Stream(f"stream {number}")
            copy = Operation(stream, "h2d", "copy", 1.0, ((link, 1.0),), holds=(dma,))
            kernel = engine.enqueue(work(Stream("compute"), 2.0, [(link, 1.0)]))
            engine.enqueue(copy, after=[kernel])
            engine.enqueue(work(stream, 1.0)).completion(engine.env)
        for member in members:
            engine.enqueue(member)
        engine.env.run()
        engine.close()

    gc.collect()
    gc.disable()
    try:
        simulate()
        assert gc.collect() < 20
    finally:
        gc.enable()
