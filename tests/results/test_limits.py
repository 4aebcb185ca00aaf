"""What limits a phase, on cases small enough to be worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim.api import simulate
from offsim.engine import Engine, Operation, Resource, Stream, Thread
from offsim.programs.run import Phase
from offsim.results.limits import CriticalPaths, PhaseSpan, job_phases, limits, slowed_by, spans


class Bench:
    """One rank whose phase is whatever was enqueued on it."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.host = Thread("host thread")
        self.host.phase, self.host.iteration = "update", 1

    def add(
        self, stream: Stream, kind: str, seconds: float, *usage: tuple[Resource, float], after: tuple[Any, ...] = ()
    ) -> Operation:
        operation = Operation(stream, kind, kind, seconds, usage)
        return self.engine.enqueue(operation, after, self.host)

    def limits(self, start: float = 0.0) -> dict[str, float]:
        self.engine.env.run()
        end = max(operation.ended_at for operation in self.engine.operations)
        run: Any = SimpleNamespace(
            operations=self.engine.operations,
            taped=None,
            ranks=[SimpleNamespace(number=0)],
            phases=[Phase(0, 1, "update", start, end)],
            first=1,
            last=1,
            iterations=1,
            started_at=start,
        )
        spent = limits(run)["update"]
        assert sum(spent.values()) == pytest.approx(end - start, abs=1e-12)
        return spent


def test_serial_chain_counts_every_operation() -> None:
    bench = Bench()
    bench.add(bench.host, "scaling", 1.0)
    bench.add(bench.host, "cpu_adam", 3.0)
    bench.add(bench.host, "conversion", 0.5)
    upload = bench.add(Stream("upload"), "h2d", 2.0, after=(bench.host.tail,))
    bench.add(bench.host, "wait", 0.0, after=(upload,))
    assert bench.limits() == {"CPU Adam": 3.0, "H2D": 2.0, "gradient scaling": 1.0, "conversion": 0.5}


def test_what_is_hidden_behind_the_longest_chain_does_not_count() -> None:
    bench = Bench()
    bench.add(bench.host, "cpu_adam", 3.0)
    copy = bench.add(Stream("copy"), "d2h", 2.0)
    bench.add(bench.host, "wait", 0.0, after=(copy,))
    assert bench.limits() == {"CPU Adam": 3.0}


def test_the_exposed_part_of_an_overlapping_copy_counts() -> None:
    # host: Adam 0-2, wait until the copy 1-4 that waited for the launch 0-1 has ended
    bench = Bench()
    other = Stream("background thread")
    ready = bench.add(other, "launch", 1.0)
    copy = bench.add(Stream("copy"), "d2h", 3.0, after=(ready,))
    bench.add(bench.host, "cpu_adam", 2.0)
    bench.add(bench.host, "wait", 0.0, after=(copy,))
    assert bench.limits() == {"D2H": 3.0, "launch": 1.0}


def test_two_operations_on_one_resource_lose_half_to_it() -> None:
    bench = Bench()
    memory = Resource("host memory bandwidth 0", 100.0)
    bench.add(bench.host, "cpu_adam", 1.0, (memory, 100.0))
    bench.add(Stream("copy"), "h2d", 1.0, (memory, 100.0))
    # both end at 2: each got half of its speed all the time
    spent = bench.limits()
    assert spent["host memory bandwidth"] == pytest.approx(1.0)
    assert spent["CPU Adam"] == pytest.approx(1.0)


def test_contention_counts_only_while_it_lasts() -> None:
    bench = Bench()
    link = Resource("PCIe both directions 0", 3.0)
    long = bench.add(Stream("a"), "h2d", 4.0, (link, 2.0))
    bench.add(Stream("b"), "d2h", 1.0, (link, 2.0))
    # at 3/4 of full speed until the short one ends at 4/3, then alone
    spent = bench.limits()
    assert spent["PCIe both directions"] == pytest.approx(1 / 3)
    assert spent["H2D"] == pytest.approx(4.0)
    assert [span.fraction for span in spans(long)] == pytest.approx([0.75, 1.0])
    assert slowed_by(long) == "PCIe both directions"


def test_a_phase_counts_only_its_own_part_of_what_reaches_into_it() -> None:
    bench = Bench()
    bench.add(bench.host, "launch", 5.0)
    assert bench.limits(start=2.0) == {"launch": 3.0}


def test_time_that_nothing_explains_is_waiting() -> None:
    bench = Bench()
    bench.add(bench.host, "cpu_adam", 1.0)

    def later() -> Any:
        yield bench.engine.env.timeout(3.0)
        bench.add(Stream("copy"), "d2h", 1.0)

    bench.engine.env.process(later())
    assert bench.limits() == {"waiting": 2.0, "CPU Adam": 1.0, "D2H": 1.0}


def test_a_thread_is_traced_to_what_started_it() -> None:
    bench = Bench()
    background = Thread("background thread")
    first = bench.add(bench.host, "cpu_adam", 1.0)

    def start_thread() -> Any:
        yield first.completion(bench.engine.env)
        # no predecessor on its own thread, and it isn't enqueued by the host thread's code
        operation = Operation(background, "conversion", "", 1.0)
        bench.engine.enqueue(operation, thread=background)

    bench.engine.env.process(start_thread())
    assert bench.limits() == {"CPU Adam": 1.0, "conversion": 1.0}


def test_an_operation_alone_is_not_slowed() -> None:
    bench = Bench()
    link = Resource("H2D 0", 1.0)
    copy = bench.add(Stream("a"), "h2d", 4.0, (link, 1.0))
    bench.engine.env.run()
    assert slowed_by(copy) == ""
    assert [(span.start, span.end, span.fraction) for span in spans(copy)] == [(0.0, 4.0, 1.0)]


def test_the_slowest_rank_ends_a_phase() -> None:
    run: Any = SimpleNamespace(
        ranks=[SimpleNamespace(number=0), SimpleNamespace(number=1)],
        phases=[
            Phase(0, 1, "update", 0.0, 0.5),
            Phase(1, 1, "update", 0.0, 0.5),
            Phase(0, 2, "forward", 0.5, 1.0),
            Phase(1, 2, "forward", 0.5, 1.5),
            Phase(0, 2, "forward", 1.0, 3.0),
            Phase(1, 2, "forward", 1.5, 2.5),
            Phase(1, 3, "forward", 2.5, 4.0),
        ],
        first=2,
        last=2,
        started_at=0.5,
    )
    assert job_phases(run) == [
        PhaseSpan(1, "forward", 0, 0.5, 1.5, rank=1),
        PhaseSpan(1, "forward", 1, 1.5, 3.0, rank=0),
    ]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
@pytest.mark.parametrize("all_ranks", [False, True])
def test_limits_add_up_to_each_phase(scheduler: dict[str, Any], all_ranks: bool) -> None:
    hardware = profile(host={"numa_domains": 2, "memory_bytes_per_s": 2e10})
    with small_buckets():
        result = simulate(scenario(scheduler, training={"data_parallel": 4}), profile=hardware, all_ranks=all_ranks)
    for phase, seconds in result.durations.items():
        assert sum(result.limits_s[phase].values()) == pytest.approx(seconds, abs=1e-9)
        assert all(amount > 0 for amount in result.limits_s[phase].values())
    table = result.limits
    assert table.groupby("phase")["percent"].sum().to_list() == pytest.approx([100.0] * 3)
    assert "waiting" not in result.limited_by
    for phase in job_phases(result.run):
        paths = CriticalPaths(result.run)
        steps = paths.walk(phase)
        assert steps[0].start == phase.start
        assert steps[-1].end == phase.end
        assert all(a.end == b.start for a, b in pairwise(steps))
        assert sum(paths.spent([phase]).values()) == pytest.approx(phase.end - phase.start, abs=1e-12)


def test_the_serial_update_is_what_the_paper_says_it_is() -> None:
    """Scaling, Adam, conversion, upload of all parameters one after another, and nothing else but fixed costs."""
    hardware = profile(
        host={"subgroup_launch_s": 0.0, "update_start_s": 0.0},
        link={"copy_latency_s": 0.0},
        interconnect={"collective_latency_s": 0.0},
    )
    result = simulate(scenario("zero3_offload", training={"data_parallel": 1}), profile=hardware)
    owned = result.run.workload.partition
    spent = result.limits_s["update"]
    assert spent["CPU Adam"] == pytest.approx(owned / 1e9)
    assert spent["gradient scaling"] == pytest.approx(owned / 4e9)
    assert spent["conversion"] == pytest.approx(owned / 5e9)
    assert spent["H2D"] == pytest.approx(2 * owned / 5e9)
    assert sum(spent.values()) == pytest.approx(owned * (1e-9 + 0.25e-9 + 0.2e-9 + 0.4e-9))
