"""Servers: slots, turns and priorities, operations that need several, and bounded pools beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import CLOSE, times, work

from offsim.engine import Engine, Operation, Resource, Server, Stream, Tier


@pytest.fixture
def engine() -> Engine:
    return Engine()


def arriving(
    engine: Engine, time: float, duration: float, *holds: Server, priority: int = 0, name: str = "copy"
) -> Operation:
    """An operation on a stream of its own that is ready at `time` and needs these servers."""
    stream = Stream(name)
    if time:
        engine.enqueue(work(stream, time, name="delay"))
    return engine.enqueue(Operation(stream, "h2d", name, duration, holds=holds, priority=priority))


# One server


def test_a_server_serves_in_the_order_of_readiness(engine: Engine) -> None:
    dma = Server()
    first, second, third = (arriving(engine, time, 5.0, dma) for time in (2.0, 1.0, 3.0))
    engine.env.run()
    assert times(second, first, third) == [(1, 6), (6, 11), (11, 16)]
    assert (first.waited_for, third.waited_for) == (second, first)


def test_a_server_is_free_again_after_a_pause(engine: Engine) -> None:
    dma = Server()
    first, second = (arriving(engine, time, 5.0, dma) for time in (0.0, 9.0))
    engine.env.run()
    assert times(first, second) == [(0, 5), (9, 14)]
    assert second.waited_for is not first
    assert dma.busy == 0


def test_two_servers_work_at_once(engine: Engine) -> None:
    down, up = arriving(engine, 0.0, 5.0, Server()), arriving(engine, 0.0, 5.0, Server())
    engine.env.run()
    assert times(down, up) == [(0, 5), (0, 5)]


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_slots_are_how_many_it_serves_at_once(engine: Engine, slots: int) -> None:
    server = Server("workers", slots)
    jobs = [arriving(engine, 0.0, 2.0, server) for _ in range(7)]
    engine.env.run()
    assert [job.started_at for job in jobs] == [2.0 * (number // slots) for number in range(7)]


def test_a_slot_goes_to_the_next_as_soon_as_one_is_free(engine: Engine) -> None:
    server = Server("workers", 2)
    jobs = [arriving(engine, 0.0, duration, server) for duration in (5.0, 1.0, 1.0, 1.0, 9.0)]
    engine.env.run()
    assert times(*jobs) == [(0, 5), (0, 1), (1, 2), (2, 3), (3, 12)]


def test_the_lowest_priority_number_is_first_then_first_come(engine: Engine) -> None:
    dma = Server()
    arriving(engine, 0.0, 1.0, dma)
    jobs = [arriving(engine, 0.1, 1.0, dma, priority=priority) for priority in (2, 1, 2, 0, 1)]
    engine.env.run()
    assert [job.started_at for job in jobs] == [4.0, 2.0, 5.0, 1.0, 3.0]


def test_a_priority_does_not_interrupt_who_is_served(engine: Engine) -> None:
    dma = Server()
    low, high = arriving(engine, 0.0, 5.0, dma, priority=9), arriving(engine, 1.0, 1.0, dma, priority=0)
    engine.env.run()
    assert times(low, high) == [(0, 5), (5, 6)]


def test_what_takes_no_time_passes_through(engine: Engine) -> None:
    lock = Server("lock")
    jobs = [arriving(engine, 1.0, 0.0, lock) for _ in range(1000)]
    engine.env.run()
    assert times(*jobs) == [(1, 1)] * 1000
    assert (lock.busy, lock.waiting) == (0, [])


def test_served_operations_still_share_resources(engine: Engine) -> None:
    server, link = Server("lanes", 2), Resource("link", 1.0)
    copies = [
        engine.enqueue(Operation(Stream("own"), "h2d", "copy", 1.0, ((link, 1.0),), holds=(server,))) for _ in range(4)
    ]
    engine.env.run()
    assert times(*copies) == [(0, 2), (0, 2), (2, 4), (2, 4)]


@pytest.mark.parametrize("slots", [0, -1, float("nan")])
def test_a_server_has_slots(slots: int) -> None:
    with pytest.raises(ValueError, match=r"lock: slots\(=.*\) must be >= 1"):
        Server("lock", slots)


# Several servers


def test_an_operation_holds_its_servers_at_once_and_only_while_it_runs(engine: Engine) -> None:
    dma, lock = Server("engine"), Server("lock")
    arriving(engine, 0.0, 4.0, dma)
    arriving(engine, 0.0, 2.0, lock)
    both = arriving(engine, 1.0, 3.0, dma, lock)
    later = [arriving(engine, 5.0, 1.0, server) for server in (dma, lock)]
    engine.env.run()
    assert times(both, *later) == [(4, 7), (7, 8), (7, 8)]


def test_nobody_overtakes_who_waits_for_a_second_server(engine: Engine) -> None:
    """The lock is free all the time, and would be taken from the one before by whoever needs only that."""
    dma, lock = Server("engine"), Server("lock")
    arriving(engine, 0.0, 4.0, dma)
    both = arriving(engine, 1.0, 1.0, dma, lock)
    locks = arriving(engine, 2.0, 1.0, lock)
    engine.env.run()
    assert times(both, locks) == [(4, 5), (5, 6)]


def test_who_stood_behind_one_admitted_elsewhere_is_admitted_too(engine: Engine) -> None:
    """The workers have a second slot for the last one, which waited only because it was behind."""
    dma, workers = Server("engine"), Server("workers", 2)
    arriving(engine, 0.0, 4.0, dma)
    both = arriving(engine, 1.0, 5.0, dma, workers)
    behind = arriving(engine, 2.0, 1.0, workers)
    engine.env.run()
    assert times(both, behind) == [(4, 9), (4, 5)]


def test_who_comes_later_but_first_by_priority_takes_a_free_server(engine: Engine) -> None:
    dma, lock = Server("engine"), Server("lock")
    arriving(engine, 0.0, 5.0, lock)
    both = arriving(engine, 1.0, 5.0, dma, lock, priority=1)
    urgent = arriving(engine, 2.0, 5.0, dma, priority=0)
    engine.env.run()
    assert times(urgent, both) == [(2, 7), (7, 12)]


def test_opposite_orders_of_the_same_servers_do_not_block_each_other(engine: Engine) -> None:
    one, other = Server("one"), Server("other")
    jobs = [arriving(engine, 0.0, 1.0, *(pair)) for pair in [(one, other), (other, one)] * 3]
    engine.env.run()
    assert [job.started_at for job in jobs] == [0, 1, 2, 3, 4, 5]


# What holds for every program


@dataclass(frozen=True)
class Job:
    """Work that needs slots of servers and buffers of a pool, which it keeps for a while after its end."""

    ready: float
    duration: float
    servers: tuple[int, ...]
    buffers: int
    kept: float
    priority: int


@st.composite
def jobs(draw: st.DrawFn, servers: int, buffers: int) -> Job:
    return Job(
        ready=float(draw(st.integers(0, 12))),
        duration=float(draw(st.integers(0, 6))),
        servers=tuple(draw(st.lists(st.integers(0, servers - 1), max_size=servers, unique=True))),
        buffers=draw(st.integers(0, buffers)),
        kept=float(draw(st.integers(0, 4))),
        priority=draw(st.integers(0, 2)),
    )


@st.composite
def workshops(draw: st.DrawFn) -> tuple[list[int], int, list[Job]]:
    """Slots of each server, buffers of the pool, and jobs."""
    slots = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    buffers = draw(st.integers(1, 3))
    return slots, buffers, draw(st.lists(jobs(len(slots), buffers), min_size=1, max_size=10))


@dataclass(frozen=True)
class Done:
    """A job that has run: how long it waited for its turn, and until when it kept its buffers."""

    job: Job
    turn: tuple[int, float, int]
    start: float
    end: float
    freed: float

    def waits(self, time: float) -> bool:
        return self.job.ready <= time < self.start


def run(slots: Sequence[int], buffers: int, given: Sequence[Job]) -> list[Done]:
    engine = Engine()
    servers = [Server(f"server {number}", count) for number, count in enumerate(slots)]
    pool = Tier(engine.env, "pool", buffers, when_full="wait")
    pairs = []
    for job in given:
        stream = Stream("own")
        delay = engine.enqueue(work(stream, job.ready))
        taken = [(pool, "buffers", float(job.buffers))] if job.buffers else []
        holds = tuple(servers[number] for number in job.servers)
        operation = Operation(stream, "copy", "copy", job.duration, holds=holds, priority=job.priority, allocates=taken)
        engine.enqueue(operation)
        freed = Operation(Stream("release"), "wait", "release", job.kept, frees=taken)
        engine.enqueue(freed, after=[operation])
        pairs.append((job, delay, operation, freed))
    engine.env.run()
    assert engine.unfinished() == []
    assert pool.used == 0
    assert max((used for *_, used in pool.series), default=0.0) <= buffers
    assert all(server.busy == 0 and not server.waiting for server in servers)
    return [
        Done(job, (job.priority, job.ready, number), operation.started_at, operation.ended_at, freed.ended_at)
        for number, (job, _, operation, freed) in enumerate(pairs)
    ]


@settings(max_examples=150, deadline=None)
@given(workshops())
def test_all_end_slots_suffice_and_nobody_overtakes_or_waits_without_a_reason(
    workshop: tuple[list[int], int, list[Job]],
) -> None:
    slots, buffers, given_jobs = workshop
    done = run(slots, buffers, given_jobs)
    instants = sorted({time for one in done for time in (one.job.ready, one.start, one.end, one.freed)})
    for before, after in pairwise(instants):
        if after - before < CLOSE:
            continue
        time = (before + after) / 2
        busy = [
            sum(number in one.job.servers and one.start <= time < one.end for one in done)
            for number in range(len(slots))
        ]
        taken = sum(one.job.buffers for one in done if one.start <= time < one.freed)
        assert all(used <= count for used, count in zip(busy, slots, strict=True))
        assert taken <= buffers
        waiting = sorted((one for one in done if one.waits(time)), key=lambda one: one.turn)
        for place, one in enumerate(waiting):
            full = any(busy[number] == slots[number] for number in one.job.servers)
            full |= bool(one.job.buffers) and taken + one.job.buffers > buffers
            behind = any(
                set(one.job.servers) & set(other.job.servers) or (one.job.buffers and other.job.buffers)
                for other in waiting[:place]
            )
            assert full or behind
    for one in done:
        for other in done:
            same = set(one.job.servers) & set(other.job.servers) or (one.job.buffers and other.job.buffers)
            if same and one.job.ready < other.job.ready and one.job.priority <= other.job.priority:
                assert one.start <= other.start
