"""Sharing of resources against theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import CLOSE, Program, Step, enqueue_at, instants, programs, rate_at, work, work_done
from scipy.optimize import linprog

from offsim.engine import Engine, Operation, Resource, Stream
from offsim.results.limits import spans

Matrix = Sequence[Sequence[float]]
"""A row per operation: the rate that it asks of each resource, 0 where it does not use it."""


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-12)


# Closed forms on one resource


@pytest.mark.parametrize("durations", [[1.0], [1.0, 2.0, 0.5], [0.25] * 50])
@pytest.mark.parametrize("rate", [0.5, 10.0])
def test_one_resource_in_order_takes_the_sum_of_its_work(durations: list[float], rate: float) -> None:
    engine, link, stream = Engine(), Resource("link", 10.0), Stream("copies")
    for duration in durations:
        engine.enqueue(work(stream, duration, [(link, rate)]))
    engine.env.run()
    assert engine.operations[-1].ended_at == close(sum(durations))
    assert all(operation.slowdowns is None for operation in engine.operations)


@pytest.mark.parametrize("flows", [1, 2, 3, 7, 64])
def test_equal_flows_on_one_link_take_n_times_as_long(flows: int) -> None:
    engine, link = Engine(), Resource("link", 55.2e9)
    for number in range(flows):
        enqueue_at(engine, 0.0, 0.3, [(link, 55.2e9)], f"flow {number}")
    engine.env.run()
    assert [operation.ended_at for operation in engine.operations] == [close(0.3 * flows)] * flows


@pytest.mark.parametrize("flows", [2, 3, 5, 8])
def test_flows_slow_down_only_beyond_the_capacity(flows: int) -> None:
    """Each asks 40 % of the link, so two run at full speed and n at 2.5 / n of it."""
    engine, link = Engine(), Resource("link", 10.0)
    for number in range(flows):
        enqueue_at(engine, 0.0, 1.0, [(link, 4.0)], f"flow {number}")
    engine.env.run()
    assert engine.env.now == close(max(1.0, flows / 2.5))


@pytest.mark.parametrize(
    ("flows", "ends"),
    [
        # (start, duration) of flows that each fill the link; worked out by hand
        ([(0, 10), (4, 3)], [13, 10]),
        ([(0, 2), (2, 2)], [2, 4]),
        ([(0, 6), (2, 6), (4, 6)], [13, 17, 18]),
        ([(0, 12), (3, 1), (6, 1)], [14, 5, 8]),
        ([(0, 1), (0, 2), (0, 3)], [3, 5, 6]),
        ([(1, 1), (1, 1), (5, 2)], [3, 3, 7]),
    ],
)
def test_staggered_flows_share_a_link_as_processor_sharing_does(
    flows: list[tuple[float, float]], ends: list[float]
) -> None:
    engine, link = Engine(), Resource("link", 10.0)
    operations = [enqueue_at(engine, start, duration, [(link, 10.0)]) for start, duration in flows]
    engine.env.run()
    assert [operation.ended_at for operation in operations] == [close(end) for end in ends]


def test_fairness_is_in_the_fraction_of_full_speed() -> None:
    """A flow that asks 9 and one that asks 3 of a link of 6 both run at half speed."""
    engine, link = Engine(), Resource("link", 6.0)
    large = enqueue_at(engine, 0.0, 1.0, [(link, 9.0)])
    small = enqueue_at(engine, 0.0, 1.0, [(link, 3.0)])
    engine.env.run()
    assert (large.ended_at, small.ended_at) == (close(2.0), close(2.0))


def test_slowdowns_record_when_by_how_much_and_by_what() -> None:
    engine, link = Engine(), Resource("link", 10.0)
    long = enqueue_at(engine, 0.0, 10.0, [(link, 10.0)])
    short = enqueue_at(engine, 4.0, 3.0, [(link, 10.0)])
    engine.env.run()
    assert long.slowdowns == [(4.0, 0.5, link), (10.0, 1.0, None)]
    assert short.slowdowns == [(4.0, 0.5, link)]


def test_changes_at_one_instant_are_one_change() -> None:
    """Three flows are replaced by three others at once: nobody's speed changes in between."""
    engine, link = Engine(), Resource("link", 10.0)
    for number in range(3):
        stream = Stream(f"stream {number}")
        for _ in range(2):
            engine.enqueue(work(stream, 1.0, [(link, 10.0)]))
    background = enqueue_at(engine, 0.0, 100.0, [(link, 10.0)])
    engine.env.run()
    assert background.slowdowns == [(0.0, 0.25, link), (close(8.0), 1.0, None)]
    assert all(len(operation.slowdowns or ()) == 1 for operation in engine.operations if operation is not background)


@pytest.mark.parametrize("parts", [[0.1, 0.2, 0.7], [1 / 3] * 3, [0.1] * 10, [0.7, 0.2, 0.1]])
@pytest.mark.parametrize("capacity", [1.0, 55.2e9, 1e-3])
def test_demands_that_add_up_to_the_capacity_are_not_slowed_by_rounding(parts: list[float], capacity: float) -> None:
    engine, link = Engine(), Resource("link", capacity)
    for part in parts:
        enqueue_at(engine, 0.0, 1.0, [(link, part * capacity)])
    engine.env.run()
    assert all(operation.slowdowns is None for operation in engine.operations)


def test_large_demands_leave_no_rounding_behind() -> None:
    """Demands of 1e15 come and go while a small one keeps the resource busy; its neighbour is not slowed."""
    engine, link = Engine(), Resource("link", 1.0)
    small = [enqueue_at(engine, 0.0, 100.0, [(link, 0.1)]), enqueue_at(engine, 50.0, 10.0, [(link, 0.9)])]
    for start in range(1, 8):
        enqueue_at(engine, float(start), 1e-15, [(link, 1e15 / 3)])
    engine.env.run()
    assert small[1].slowdowns is None
    assert link.load == 0.0
    assert not link.running


@pytest.mark.parametrize("capacity", [0.0, -1.0, math.nan])
def test_a_capacity_must_be_positive(capacity: float) -> None:
    with pytest.raises(ValueError, match=r"link: capacity\(=.*\) must be > 0"):
        Resource("link", capacity)


# Max-min fairness over several resources


def fractions(capacities: Sequence[float], asked: Matrix) -> list[float]:
    """Fractions of operations that start together, as the engine has them."""
    engine = Engine()
    resources = [Resource(f"resource {i}", capacity) for i, capacity in enumerate(capacities)]
    for rates in asked:
        usage = [(resource, rate) for resource, rate in zip(resources, rates, strict=True) if rate]
        engine.enqueue(work(Stream("own"), 1.0, usage))
    engine.env.run(until=1e-9)
    return [operation.fraction for operation in engine.operations]


@pytest.mark.parametrize(
    ("capacities", "asked", "expected"),
    [
        # The second is held back by the second resource to 1/3; what it leaves of the first goes to the first.
        ([10, 4], [[10, 0], [10, 10], [0, 2]], [2 / 3, 1 / 3, 1 / 3]),
        # The same, but the first can take no more than its full speed: 2 of 12 stay unused.
        ([12, 4], [[9, 0], [10, 16], [0, 4]], [1.0, 0.2, 0.2]),
        # Bertsekas and Gallager: three sessions through a line of links, one across all.
        ([1, 1, 2], [[1, 1, 2], [1, 0, 0], [0, 1, 0], [0, 0, 2]], [0.5, 0.5, 0.5, 0.5]),
        ([1, 2, 4], [[1, 2, 4], [1, 0, 0], [0, 4, 0], [0, 0, 4]], [1 / 3, 2 / 3, 1 / 3, 2 / 3]),
        # Nothing is scarce.
        ([5, 5], [[2, 3], [3, 2]], [1.0, 1.0]),
        # Copies in both directions (duplex 30 of 20 + 20) beside CPU work on the same memory.
        ([20, 20, 30, 52], [[20, 0, 20, 20], [0, 20, 20, 20], [0, 0, 0, 28]], [0.75, 0.75, 22 / 28]),
    ],
)
def test_max_min_fractions_worked_out_by_hand(capacities: list[float], asked: Matrix, expected: list[float]) -> None:
    assert fractions(capacities, asked) == [close(value) for value in expected]


def reference(capacities: Sequence[float], asked: Matrix) -> list[float]:
    """Lexicographic max-min by linear programs: raise the lowest fraction, fix those that cannot rise further."""
    rates = np.array(asked, dtype=float)
    count = len(rates)
    fixed: dict[int, float] = {}

    def solve(objective: np.ndarray, low: float) -> float:
        """Maximise over fractions and a common level that free ones reach; `low` is the least of free ones."""
        free = [i for i in range(count) if i not in fixed]
        rows = np.zeros((len(capacities) + len(free), count + 1))
        rows[: len(capacities), :count] = rates.T
        for row, i in enumerate(free, len(capacities)):
            rows[row, [i, count]] = -1.0, 1.0
        bounds = [(fixed[i], fixed[i]) if i in fixed else (low, 1.0) for i in range(count)] + [(0.0, 1.0)]
        right = np.concatenate([capacities, np.zeros(len(free))])
        return float(-linprog(-objective, A_ub=rows, b_ub=right, bounds=bounds).fun)

    unit = np.eye(count + 1)
    while len(fixed) < count:
        level = solve(unit[count], 0.0)
        free = [i for i in range(count) if i not in fixed]
        stuck = [i for i in free if solve(unit[i], level * (1 - 1e-9)) <= level * (1 + 1e-6)]
        fixed.update(dict.fromkeys(stuck, level * (1 - 1e-9)))
    return [fixed[i] for i in range(count)]


@st.composite
def instances(draw: st.DrawFn, most: int) -> tuple[list[float], list[list[float]]]:
    resources = draw(st.integers(1, 3))
    rates = st.one_of(st.just(0.0), st.integers(1, 20).map(float))
    row = st.lists(rates, min_size=resources, max_size=resources)
    capacities = [float(draw(st.integers(1, 40))) for _ in range(resources)]
    return capacities, draw(st.lists(row, min_size=1, max_size=most))


@settings(max_examples=25, deadline=None)
@given(instances(most=4))
def test_fractions_equal_those_of_linear_programs(instance: tuple[list[float], list[list[float]]]) -> None:
    assert fractions(*instance) == pytest.approx(reference(*instance), rel=1e-5)


@settings(max_examples=200, deadline=None)
@given(instances(most=10))
def test_whoever_is_below_full_speed_has_a_bottleneck(instance: tuple[list[float], list[list[float]]]) -> None:
    """An allocation is max-min fair if and only if each has a full resource on which nobody has more."""
    capacities, asked = instance
    shares = fractions(capacities, asked)
    rates = np.array(asked)
    taken = rates.T @ shares
    assert np.all(taken <= np.array(capacities) * (1 + CLOSE))
    for share, own in zip(shares, rates, strict=True):
        assert 0 < share <= 1
        bottlenecks = [
            r
            for r, capacity in enumerate(capacities)
            if own[r] and taken[r] >= capacity * (1 - CLOSE) and share >= max(np.array(shares)[rates[:, r] > 0]) - CLOSE
        ]
        assert share == 1 or bottlenecks


# What holds for every program


@settings(max_examples=100, deadline=None)
@given(programs())
def test_work_is_conserved_and_no_resource_exceeds_its_capacity(program: Program) -> None:
    _, resources, operations = program.run()
    for operation in operations:
        assert work_done(operation) == pytest.approx(operation.duration, rel=1e-9, abs=1e-9)
        assert all(0 < span.fraction <= 1 for span in spans(operation))
    for time in instants(operations):
        for resource in resources:
            assert rate_at(operations, resource, time) <= resource.capacity * (1 + 2 * CLOSE)


@settings(max_examples=100, deadline=None)
@given(programs())
def test_whatever_holds_an_operation_back_is_fully_used(program: Program) -> None:
    _, _, operations = program.run()
    for time in instants(operations):
        for operation in operations:
            for span in spans(operation):
                if span.start <= time < span.end and span.fraction < 1:
                    assert span.bottleneck is not None
                    assert span.bottleneck in dict(operation.usage)
                    used = rate_at(operations, span.bottleneck, time)
                    assert used == pytest.approx(span.bottleneck.capacity, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(programs())
def test_the_makespan_is_bounded_by_resources_and_chains(program: Program) -> None:
    ran = program.run()
    for resource in ran.resources:
        asked = sum(o.duration * rate for o in ran.operations for used, rate in o.usage if used is resource)
        assert ran.makespan >= asked / resource.capacity * (1 - CLOSE)
        assert resource.load == 0.0
        assert not resource.running
    chain: list[float] = []
    last_on: dict[int, int] = {}
    for index, step in enumerate(program.steps):
        before = [*step.after, *([last_on[step.stream]] if step.stream in last_on else [])]
        chain.append(step.duration + max((chain[i] for i in before), default=0.0))
        last_on[step.stream] = index
    assert ran.makespan >= max(chain) * (1 - CLOSE)
    assert ran.makespan <= sum(step.duration for step in program.steps) * (1 + CLOSE) + CLOSE


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 10), st.floats(0.1, 10)), min_size=1, max_size=8),
    st.floats(1, 10),
)
@settings(max_examples=60, deadline=None)
def test_more_capacity_is_never_slower_for_independent_flows(
    flows: list[tuple[float, float, float]], factor: float
) -> None:
    """On one link. Over several it need not hold: what goes faster on one may take more of the other."""
    ends: list[list[float]] = []
    for capacity in (10.0, 10.0 * factor):
        engine, link = Engine(), Resource("link", capacity)
        operations = [enqueue_at(engine, start, duration, [(link, rate)]) for start, duration, rate in flows]
        engine.env.run()
        ends.append([operation.ended_at for operation in operations])
    assert all(faster <= slower * (1 + CLOSE) for slower, faster in zip(*ends, strict=True))


def test_more_capacity_can_be_slower_for_others_where_flows_are_coupled() -> None:
    """The counterexample to the above: a wider first link lets the flow across both take more of the second."""
    ends = []
    for capacity in (2.0, 10.0):
        across = Step(0, 10.0, (("first", 10.0), ("second", 10.0)))
        other = Step(1, 1.0, (("second", 10.0),))
        ran = Program({"first": capacity, "second": 10.0}, (across, other)).run()
        ends.append(ran.operations[1].ended_at)
    assert ends == [close(1.25), close(2.0)]


# Size


@pytest.mark.parametrize("flows", [100, 1000])
def test_flows_that_start_and_end_together_cost_a_constant_each(flows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, link = Engine(), Resource("link", 1.0)
    noted: list[object] = []
    note = engine.sharing._note

    def count(operation: Operation) -> None:
        noted.append(operation)
        note(operation)

    monkeypatch.setattr(engine.sharing, "_note", count)
    for _ in range(flows):
        engine.enqueue(work(Stream("own"), 1.0, [(link, 1.0)]))
    engine.env.run()
    assert engine.env.now == close(flows)
    assert len(noted) <= 3 * flows


@pytest.mark.parametrize("flows", [10, 100])
def test_of_flows_behind_one_bottleneck_only_the_next_end_is_noted(flows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends at a time of its own, after which the others share what it leaves."""
    engine, link = Engine(), Resource("link", 1.0)
    for i in range(flows):
        engine.enqueue(work(Stream("own"), 1.0 + i, [(link, 1.0)]))
    noted: list[int] = []
    share = engine.sharing.share

    def count(now: float) -> None:
        share(now)
        noted.append(len(engine.sharing.ends))

    monkeypatch.setattr(engine.sharing, "share", count)
    engine.env.run()
    assert len(noted) == flows
    assert max(noted) <= 2
    assert engine.env.now == close(flows * (flows + 1) / 2)


def test_a_flow_is_touched_only_by_what_it_is_coupled_to() -> None:
    """Contention on one link leaves a flow on another alone, though both use a third that is not scarce."""
    engine = Engine()
    left, right, shared = Resource("left", 1.0), Resource("right", 1.0), Resource("shared", 100.0)
    for _ in range(3):
        enqueue_at(engine, 0.0, 1.0, [(left, 1.0), (shared, 1.0)])
    alone = enqueue_at(engine, 0.5, 1.0, [(right, 1.0), (shared, 1.0)])
    engine.env.run()
    assert alone.slowdowns is None
    assert alone.ended_at == close(1.5)


def test_a_change_travels_along_a_chain_of_coupled_resources() -> None:
    """Each flow takes what its predecessor leaves of a link, and uses the next one too: up and down in turn."""
    engine = Engine()
    links = [Resource(f"link {i}", capacity) for i, capacity in enumerate([0.1, 0.35, 0.65, 0.95, 1.25, 9.0])]
    line = [enqueue_at(engine, 0.0, 10.0, [(a, 1.0), (b, 1.0)]) for a, b in pairwise(links)]
    engine.env.run(until=1.0)
    assert [operation.fraction for operation in line] == [close(value) for value in (0.1, 0.25, 0.4, 0.55, 0.7)]
    engine.enqueue(work(Stream("one more"), 10.0, [(links[0], 1.0)]))
    engine.env.run(until=1.5)
    assert [operation.fraction for operation in line] == [close(value) for value in (0.05, 0.3, 0.35, 0.6, 0.65)]
    assert [operation.slowdowns[-1][2] for operation in line if operation.slowdowns] == links[:5]


# Rates many orders of magnitude apart


@pytest.mark.parametrize("factor", [1e12, 1e16, 1e17, 1e20, 1e27])
@pytest.mark.parametrize("last", ["small", "large"])
def test_rates_far_apart_share_one_resource(factor: float, last: str) -> None:
    """Both run at half speed: fairness is in the fraction of an operation's own speed, however different those are."""
    engine = Engine()
    memory, cores = Resource("memory", factor), Resource("cores", 1.0)
    rates = [1.0, factor] if last == "large" else [factor, 1.0]
    operations = [enqueue_at(engine, 0.0, 1.0, [(memory, rate), (cores, 1.0)]) for rate in rates]
    engine.env.run()
    assert [operation.ended_at for operation in operations] == [close(2.0)] * 2
    assert (memory.load, cores.load) == (0.0, 0.0)


@pytest.mark.parametrize("factor", [1e9, 1e16, 1e17, 1e20, 1e27])
def test_large_rates_held_back_elsewhere_leave_small_ones_alone(factor: float) -> None:
    """The memory is asked for twice its rate, but the cores let only a thousandth of that come."""
    engine = Engine()
    memory, cores = Resource("memory", factor), Resource("cores", 1e-3)
    large = [enqueue_at(engine, 0.0, 1.0, [(memory, factor), (cores, 1.0)]) for _ in range(2)]
    small = enqueue_at(engine, 0.0, 1.0, [(memory, 1.0)])
    engine.env.run()
    assert [operation.ended_at for operation in large] == [close(2000.0)] * 2
    assert small.ended_at == close(1.0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-12, 27), st.integers(0, 27), st.integers(1, 5)),
        min_size=1,
        max_size=8,
    ),
    st.tuples(st.integers(-3, 27), st.integers(-3, 3)),
)
def test_rates_far_apart_neither_fail_nor_finish_early(
    flows: list[tuple[int, int, int, int]], capacities: tuple[int, int]
) -> None:
    """What they need of a resource cannot be had sooner; with whole powers of ten as rates and capacities."""
    engine = Engine()
    one, other = (Resource(name, 10.0**power) for name, power in zip(("one", "other"), capacities, strict=True))
    operations = [
        enqueue_at(engine, float(start), float(duration), [(one, 10.0**first), (other, 10.0 ** (second - 24))])
        for start, first, second, duration in flows
    ]
    engine.env.run()
    for resource in (one, other):
        asked = sum(o.duration * rate for o in operations for used, rate in o.usage if used is resource)
        first = min(operation.started_at for operation in operations)
        assert engine.env.now - first >= asked / resource.capacity * (1 - 1e-6)
        assert not resource.running
    for operation in operations:
        assert operation.ended_at - operation.started_at >= operation.duration * (1 - CLOSE)
