"""Memory tiers: occupants, high-water marks and what does not fit."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment, Event

from offsim.engine import Engine, Operation, OutOfMemory, Stream, Tier

GIB = 2.0**30


@pytest.fixture
def env() -> Environment:
    return Environment()


@pytest.fixture
def tier(env: Environment) -> Tier:
    return Tier(env, "GPU 0", 80 * GIB)


def test_the_series_has_a_row_per_change(env: Environment, tier: Tier) -> None:
    tier.allocate("parameters", 10 * GIB)
    env.run(until=2.0)
    tier.allocate("activations", 30 * GIB)
    tier.free("parameters", 4 * GIB)
    assert tier.series == [
        (0.0, "parameters", 10 * GIB, 10 * GIB),
        (2.0, "activations", 30 * GIB, 40 * GIB),
        (2.0, "parameters", 6 * GIB, 36 * GIB),
    ]
    assert tier.used == 36 * GIB
    assert tier.occupants == {"parameters": 6 * GIB, "activations": 30 * GIB}


def at_peak(tier: Tier) -> tuple[float, dict[str, float]]:
    """When most was in use for the first time, and what each occupant held then."""
    rows = tier.series[: 1 + [used for *_, used in tier.series].index(tier.peak)] if tier.series else []
    held = {occupant: nbytes for _, occupant, nbytes, _ in rows}
    return (rows[-1][0] if rows else 0.0), {occupant: nbytes for occupant, nbytes in held.items() if nbytes > 0}


def test_the_high_water_mark_has_an_instant_and_occupants(env: Environment, tier: Tier) -> None:
    tier.allocate("parameters", 10 * GIB)
    tier.allocate("gathered", 1 * GIB)
    tier.free("gathered", 1 * GIB)
    env.run(until=1.0)
    tier.allocate("activations", 30 * GIB)
    env.run(until=3.0)
    tier.free("activations", 25 * GIB)
    tier.allocate("parameters", 5 * GIB)
    assert (tier.peak, at_peak(tier)[0]) == (40 * GIB, 1.0)
    assert at_peak(tier)[1] == {"parameters": 10 * GIB, "activations": 30 * GIB}


def test_the_first_of_equal_peaks_counts(env: Environment, tier: Tier) -> None:
    for start in (1.0, 2.0, 3.0):
        env.run(until=start)
        tier.allocate("activations", 7.0)
        tier.free("activations", 7.0)
    assert at_peak(tier)[0] == 1.0


def test_a_tier_can_be_filled_to_the_last_byte(tier: Tier) -> None:
    tier.allocate("state", 80 * GIB)
    assert tier.peak == tier.capacity


def test_out_of_memory_says_where_when_and_beside_what(env: Environment, tier: Tier) -> None:
    tier.allocate("parameters", 60 * GIB)
    env.run(until=1.5)
    with pytest.raises(OutOfMemory, match=r"GPU 0: 21474836481 B for activations do not fit at 1\.5") as caught:
        tier.allocate("activations", 20 * GIB + 1)
    verdict = caught.value
    assert (verdict.tier, verdict.occupant, verdict.asked, verdict.time) == (tier, "activations", 20 * GIB + 1, 1.5)
    assert verdict.occupants == {"parameters": 60 * GIB}
    assert tier.used == 60 * GIB  # nothing was allocated
    tier.free("parameters", GIB)
    assert verdict.occupants == {"parameters": 60 * GIB}


@pytest.mark.parametrize("held", [0.0, 5.0])
def test_an_occupant_cannot_free_more_than_it_holds(tier: Tier, held: float) -> None:
    tier.allocate("others", 100.0)
    tier.allocate("activations", held)
    with pytest.raises(ValueError, match=rf"GPU 0: freeing 6 B of activations, which holds {held:.0f} B"):
        tier.free("activations", 6.0)
    assert tier.used == 100.0 + held


def test_an_unknown_occupant_holds_nothing(tier: Tier) -> None:
    with pytest.raises(ValueError, match="which holds 0 B"):
        tier.free("typo", 1.0)


@pytest.mark.parametrize("nbytes", [-1.0, float("nan")])
def test_bytes_are_not_negative(tier: Tier, nbytes: float) -> None:
    tier.allocate("state", 10.0)
    with pytest.raises(ValueError, match="state"):
        tier.allocate("state", nbytes)
    with pytest.raises(ValueError, match="state"):
        tier.free("state", nbytes)


def test_rounding_leaves_nothing_negative(tier: Tier) -> None:
    for share in (0.1, 0.2, 0.3):
        tier.allocate("thirds", share)
    tier.free("thirds", 0.6 + 1e-9)
    assert tier.occupants == {"thirds": 0.0}
    assert tier.used == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-1e3, 1e3)), max_size=40))
def test_use_is_the_sum_of_occupants_and_never_negative(changes: list[tuple[str, float]]) -> None:
    tier = Tier(Environment(), "host", 5e3)
    most = 0.0
    for occupant, nbytes in changes:
        try:
            if nbytes > 0:
                tier.allocate(occupant, nbytes)
            else:
                tier.free(occupant, -nbytes)
        except (OutOfMemory, ValueError):
            continue
        most = max(most, tier.used)
    assert tier.used == pytest.approx(sum(tier.occupants.values()), abs=1e-6)
    assert tier.peak == most
    assert sum(at_peak(tier)[1].values()) == pytest.approx(most, abs=1e-6)
    assert all(held >= 0 and 0 <= used <= tier.capacity for _, _, held, used in tier.series)


# Through the engine


def holding(stream: Stream, tier: Tier, nbytes: float, duration: float) -> Operation:
    change = [(tier, "working set", nbytes)]
    return Operation(stream, "compute", "kernel", duration, allocates=change, frees=change)


@pytest.mark.parametrize("duration", [0.0, 2.0])
def test_operations_hold_memory_while_they_run(duration: float) -> None:
    engine, stream = Engine(), Stream("compute")
    tier = Tier(engine.env, "GPU 0", 100.0)
    for _ in range(3):  # each as large as the tier: one frees before the next allocates
        engine.enqueue(holding(stream, tier, 100.0, duration))
    engine.env.run()
    assert tier.used == 0.0
    assert [(time, used) for time, _, _, used in tier.series] == [
        (time, used) for start in (0, 1, 2) for time, used in ((start * duration, 100.0), ((start + 1) * duration, 0.0))
    ]


def test_memory_is_taken_when_an_operation_starts_not_when_it_is_enqueued() -> None:
    engine = Engine()
    tier = Tier(engine.env, "GPU 0", 100.0)
    first = engine.enqueue(holding(Stream("compute"), tier, 80.0, 3.0))
    engine.enqueue(holding(Stream("copies"), tier, 80.0, 3.0), after=[first])
    engine.env.run()
    assert (tier.peak, engine.env.now) == (80.0, 6.0)


@pytest.mark.parametrize("awaited", [True, False])
def test_out_of_memory_ends_the_run(awaited: bool) -> None:
    """Raised in a process that somebody waits for, or that nobody does: SimPy copies it in the second case."""
    engine = Engine()
    tier = Tier(engine.env, "host", 100.0)

    def host() -> Generator[Event, None, None]:
        yield engine.enqueue(holding(Stream("compute"), tier, 60.0, 1.0)).completion(engine.env)
        engine.enqueue(holding(Stream("compute"), tier, 60.0, 1.0))
        engine.enqueue(holding(Stream("copies"), tier, 50.0, 1.0))

    process = engine.env.process(host())
    with pytest.raises(OutOfMemory) as caught:
        engine.env.run(until=process if awaited else None)
    verdict = caught.value
    assert (verdict.tier, verdict.asked, verdict.time) == (tier, 50.0, 1.0)
    assert verdict.occupants == {"working set": 60.0}


def test_out_of_memory_of_an_operation_that_starts_later() -> None:
    engine = Engine()
    tier = Tier(engine.env, "host", 100.0)
    first = engine.enqueue(holding(Stream("a"), tier, 0.0, 4.0))
    engine.enqueue(holding(Stream("b"), tier, 101.0, 1.0), after=[first])
    with pytest.raises(OutOfMemory) as caught:
        engine.env.run()
    assert caught.value.time == 4.0


# Bounded pools


def pool_of(engine: Engine, slots: float) -> Tier:
    return Tier(engine.env, "swap buffers", slots, when_full="wait")


def using(engine: Engine, pool: Tier, buffers: float, duration: float, ready: float = 0.0) -> Operation:
    """An operation on a stream of its own, ready at `ready`, that uses buffers while it runs."""
    stream, change = Stream("own"), [(pool, "buffers", buffers)]
    if ready:
        engine.enqueue(Operation(stream, "delay", "delay", ready))
    return engine.enqueue(Operation(stream, "read", "read", duration, allocates=change, frees=change))


@pytest.mark.parametrize(("slots", "starts"), [(1, [0, 2, 4, 6]), (2, [0, 0, 2, 2]), (3, [0, 0, 0, 2]), (4, [0] * 4)])
def test_an_operation_waits_for_a_free_buffer(slots: int, starts: list[float]) -> None:
    engine = Engine()
    pool = pool_of(engine, slots)
    reads = [using(engine, pool, 1, 2.0) for _ in range(4)]
    engine.env.run()
    assert [read.started_at for read in reads] == starts
    assert (pool.peak, pool.used) == (slots, 0)
    released = [read.waited_for for read in reads[slots:]]
    assert released == reads[: 4 - slots]


def test_buffers_are_given_out_in_the_order_of_readiness() -> None:
    """The large request is not overtaken by the small one for which there is room."""
    engine = Engine()
    pool = pool_of(engine, 3)
    using(engine, pool, 2, 4.0)
    large, small = using(engine, pool, 3, 1.0, ready=1.0), using(engine, pool, 1, 1.0, ready=2.0)
    engine.env.run()
    assert (large.started_at, small.started_at) == (4.0, 5.0)


def test_buffers_freed_one_by_one_let_in_all_who_fit() -> None:
    engine = Engine()
    pool = pool_of(engine, 4)
    using(engine, pool, 4, 3.0)
    waiting = [using(engine, pool, buffers, 5.0) for buffers in (1, 2, 1, 1)]
    engine.env.run()
    assert [operation.started_at for operation in waiting] == [3.0, 3.0, 3.0, 8.0]


def test_buffers_may_be_kept_beyond_the_operation_that_took_them() -> None:
    """Read into a buffer, use it, write it back: freed with the last of the three."""
    engine = Engine()
    pool = pool_of(engine, 2)
    buffer = [(pool, "buffers", 1.0)]
    streams = {name: Stream(name) for name in ("read", "compute", "write")}
    reads = []
    for number in range(4):
        read = engine.enqueue(Operation(streams["read"], "read", f"read {number}", 1.0, allocates=buffer))
        used = engine.enqueue(Operation(streams["compute"], "compute", f"use {number}", 1.0), [read])
        engine.enqueue(Operation(streams["write"], "write", f"write {number}", 3.0, frees=buffer), [used])
        reads.append(read)
    engine.env.run()
    # written at 2-5, 5-8, 8-11, 11-14: the third read waits for the first write, the fourth for the second
    assert [read.started_at for read in reads] == [0, 1, 5, 8]
    assert engine.env.now == 14.0


def test_a_pool_and_a_tier_that_fails_side_by_side() -> None:
    """Bytes are taken when the operation starts, not while it waits for its buffer."""
    engine = Engine()
    pool, tier = pool_of(engine, 1), Tier(engine.env, "GPU 0", 100.0)
    for number in range(3):
        change = [(pool, "buffers", 1.0), (tier, f"working set {number}", 100.0)]
        engine.enqueue(Operation(Stream("own"), "compute", "kernel", 2.0, allocates=change, frees=change))
    engine.env.run()
    assert (engine.env.now, tier.peak, tier.used) == (6.0, 100.0, 0.0)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_request_larger_than_the_pool_runs_out_of_memory(at_once: bool) -> None:
    engine = Engine()
    pool = pool_of(engine, 4)
    half = [(pool, "buffers", 2.5)] if at_once else [(pool, "buffers", 5.0)]
    engine.enqueue(Operation(Stream("first"), "delay", "delay", 1.0, allocates=[(pool, "others", 1.0)]))
    stream = Stream("own")
    engine.enqueue(Operation(stream, "delay", "delay", 0.5))
    engine.enqueue(Operation(stream, "read", "read", 1.0, allocates=half * 2 if at_once else half))
    with pytest.raises(OutOfMemory, match=r"swap buffers: 5 B for buffers do not fit at 0\.5") as caught:
        engine.env.run()
    assert caught.value.occupants == {"others": 1.0}


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=12),
)
def test_a_pool_is_never_over_its_capacity_and_never_idle_for_who_is_first(
    slots: int, requests: list[tuple[int, int, int]]
) -> None:
    engine = Engine()
    pool = pool_of(engine, slots)
    asked = [(min(buffers, slots), duration, ready) for buffers, duration, ready in requests]
    operations = [using(engine, pool, buffers, duration, ready) for buffers, duration, ready in asked]
    engine.env.run()
    assert pool.used == 0
    assert all(0 <= used <= slots for *_, used in pool.series)
    # First come, first served: each starts once the earlier ones have started and there is room for it.
    free = 0.0
    running: list[tuple[float, int]] = []
    for place in sorted(range(len(asked)), key=lambda i: asked[i][2]):
        buffers, duration, ready = asked[place]
        start = max(free, float(ready))
        while sum(held for end, held in running if end > start) + buffers > slots:
            start = min(end for end, _ in running if end > start)
        assert operations[place].started_at == start
        running.append((start + duration, buffers))
        free = start
