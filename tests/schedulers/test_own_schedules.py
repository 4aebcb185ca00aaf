"""The conformance suite on schedules of our own: one that swaps through a pool, and some that it has to refuse."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import conformance
import pytest
from conformance import Case, facts

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.platform.platform import HOST
from offsim.programs.checks import ScheduleError
from offsim.programs.options import ScheduleOptions
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.no_offload import NoOffload
from offsim.schedulers.registry import BUILT_IN
from offsim.states.pool import Pool


class SwappedOptions(ScheduleOptions):
    """As few buffers as there may be."""

    buffers: Count = 3


class Swapped(TrainingSchedule):
    """State on NVMe: read into a buffer, update, write back, in turn from either end; reads run ahead of updates."""

    name = "swapped"
    Options = SwappedOptions
    period = 2
    optimizer_kinds = ("storage",)
    optimizer_home = "nvme"

    def place(self, rank: Rank) -> None:
        super().place(rank)
        largest = max(s.elements for s in self.subgroups)
        self.pool = Pool(rank.host_memory, "swap buffers", self.options.buffers, 3 * FP32 * largest)
        self.forth = True

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        yield rank.d2h(rank.reduce_stream, BF16 * self.elements(bucket), "gradients")

    def update(self, rank: Rank) -> Code:
        order = self.subgroups if self.forth else self.subgroups[::-1]
        self.forth = not self.forth
        reads = [self.read(rank, s) for s in order]
        for subgroup, read in zip(order, reads, strict=True):
            yield read
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            self.write(rank, subgroup)
            copy = rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
            self.written(rank, subgroup, copy)
            yield copy
        yield rank.wait(rank.stream("nvme write"))

    def read(self, rank: Rank, subgroup: Subgroup) -> Operation:
        nbytes, buffer = 3 * FP32 * subgroup.elements, self.pool.buffers()
        return rank.move(nbytes, "nvme", HOST, "read state", subgroup.index, allocates=buffer)

    def write(self, rank: Rank, subgroup: Subgroup) -> Operation:
        nbytes, buffer = 3 * FP32 * subgroup.elements, self.pool.buffers()
        return rank.move(nbytes, HOST, "nvme", "write state", subgroup.index, frees=buffer)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """All schedules of this file are registered while a test of it runs."""
    own = [value for value in globals().values() if isinstance(value, type) and issubclass(value, TrainingSchedule)]
    with patch.dict(BUILT_IN, {schedule.name: schedule for schedule in own if hasattr(schedule, "name")}):
        yield


def swapped_bytes(case: Case) -> dict[str, float]:
    known = facts(case)
    owned, steps = known.owned, known.micro_steps
    return {"d2h": 2 * owned * steps, "h2d": 2 * owned, "nvme read": 12 * owned, "nvme write": 12 * owned}


SWAPPED = [
    Case("swapped"),
    Case("swapped", options={"buffers": 1}),
    Case("swapped", options={"buffers": 40}),
    Case("swapped", training={"global_batch": 6}),
]


@pytest.mark.parametrize("case", SWAPPED, ids=str)
def test_a_schedule_that_swaps_conforms(case: Case) -> None:
    result = case.simulate()
    assert result.run.iterations == 2
    conformance.check_run(result, facts(case), swapped_bytes(case))
    for check in conformance.CHECKS:
        check(case)
    conformance.check_link_alone(case, swapped_bytes(case))
    conformance.check_storage_alone(case, swapped_bytes(case))
    conformance.check_cpu_alone(case)
    assert conformance.check_small_pools(case, 1)
    assert conformance.check_small_pools(case, 2)


def test_a_period_of_two_is_reported_by_the_iteration() -> None:
    """The sub-groups differ in size, so that the two directions take different times."""
    case = Case("swapped", training={"data_parallel": 1, "global_batch": 1})
    result = case.simulate()
    run = result.run
    updates = [p.end - p.start for p in run.phases if p.name == "update" and run.first <= p.iteration <= run.last]
    assert len(updates) == 2
    assert updates[0] != pytest.approx(updates[1], rel=1e-7)
    assert result.durations["update"] == pytest.approx(sum(updates) / 2)
    assert result.iteration_s == pytest.approx(sum(result.durations.values()))
    for phase, seconds in result.durations.items():
        assert sum(result.limits_s[phase].values()) == pytest.approx(seconds)


def test_bounded_buffers_cost_time_and_never_save_any() -> None:
    seconds = [Case("swapped", options={"buffers": n}).simulate().durations["update"] for n in (1, 2, 3, 4, 40)]
    assert all(more <= fewer * (1 + conformance.CLOSE) for fewer, more in pairwise(seconds))
    assert seconds[0] > 1.1 * seconds[-1]


class Scattered(Swapped):
    """Uploads on a stream each, the first sub-groups last, and waits for none of them."""

    name = "scattered"
    period = 1

    def update(self, rank: Rank) -> Code:
        for subgroup in self.subgroups:
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
        for subgroup in self.subgroups:
            stream, nbytes = rank.stream(f"upload {subgroup.index}"), 40 * FP32 * subgroup.elements
            copy = rank.h2d(stream, nbytes / (1 + subgroup.index), "upload parameters", subgroup.index)
            self.written(rank, subgroup, copy)


@pytest.mark.parametrize("ranks", [1, 2])
def test_kernels_wait_for_all_that_they_read(ranks: int) -> None:
    """Embedding, layers and head: each of sub-groups that come at different times."""
    case = Case("scattered", training={"data_parallel": ranks, "global_batch": ranks, "subgroup_size": 100_000})
    conformance.check_versions(case)
    run = case.simulate(conformance.node(link={"h2d_bytes_per_s": 1e9})).run
    begins = {o.name: o.started_at for o in conformance.last(run, "compute")}
    uploads = {o.subgroup: o.ended_at for o in run.operations if o.name.startswith("upload") and o.iteration < run.last}
    assert begins["embedding"] == pytest.approx(uploads[0], abs=1e-4)  # and then its all-gather


# What the suite refuses


class Leaking(NoOffload):
    """Keeps something of each iteration."""

    name = "leaking"

    def update(self, rank: Rank) -> Code:
        rank.host_memory.allocate("forgotten", 1e6)
        yield from super().update(rank)


class Stale(NoOffload):
    """Updates the first sub-group without telling."""

    name = "stale"

    def written(self, rank: Rank, subgroup: Subgroup, since: Operation | None, update: int | None = None) -> None:
        if subgroup.index:
            super().written(rank, subgroup, since, update)


class Late(NoOffload):
    """May be one update behind, and is."""

    name = "late"
    lag = 1

    def update(self, rank: Rank) -> Code:
        yield from ()
        for subgroup in self.subgroups:
            rank.gpu_adam(subgroup.elements, subgroup.index)
            if rank.iteration > 1:
                self.written(rank, subgroup, None, rank.iteration - 1)


class Racing(Swapped):
    """Its last upload is awaited by nobody, though it says that kernels wait."""

    name = "racing"
    period = 1

    def update(self, rank: Rank) -> Code:
        yield from ()
        for subgroup in self.subgroups:
            rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
            self.written(rank, subgroup, None)


class Stuck(Swapped):
    """Never gives its buffers back."""

    name = "stuck"

    def write(self, rank: Rank, subgroup: Subgroup) -> Operation:
        return rank.move(3 * FP32 * subgroup.elements, HOST, "nvme", "write state", subgroup.index)


def test_what_is_not_given_back_is_found() -> None:
    case = Case("leaking")
    run = case.simulate().run
    assert not run.settled
    with pytest.raises(AssertionError, match="host"):
        conformance.check_memory(run)
    with pytest.raises(AssertionError):
        conformance.check_repeats(case)


def test_parameters_that_are_too_old_are_an_error() -> None:
    message = (
        r"iteration 2 reads the parameters of sub-group 0 as the update of iteration 0 left them; expected that of "
    )
    with pytest.raises(ScheduleError, match=message + r"iteration 1 or later \(lag 0\)"):
        Case("stale").simulate()


def test_parameters_may_be_as_old_as_the_lag() -> None:
    conformance.check_versions(Case("late"))
    with conformance.reads_of_parameters() as reads:
        Case("late").simulate()
    assert max(behind for _, _, behind, _ in reads) == 1
    with patch.object(Late, "lag", 0), pytest.raises(ScheduleError):
        Case("late").simulate()


def test_bytes_that_move_unsaid_are_found() -> None:
    case = Case("swapped")
    for route in ("h2d", "nvme write"):
        with pytest.raises(AssertionError):
            conformance.check_bytes(case.simulate(), swapped_bytes(case) | {route: 1e6})


def test_buffers_that_are_never_given_back_are_a_deadlock() -> None:
    stuck = r"host thread of rank 0 waits for 'read state', which waits for room in swap buffers"
    with pytest.raises(ScheduleError, match=rf"test_own_schedules.py:\d+: scheduler stuck, update of .*: {stuck}"):
        Case("stuck").simulate()


def test_a_request_larger_than_its_pool_is_a_verdict() -> None:
    class Greedy(Swapped):
        name = "greedy"

        def read(self, rank: Rank, subgroup: Subgroup) -> Operation:
            nbytes, buffers = 3 * FP32 * subgroup.elements, self.pool.buffers(4)
            return rank.move(nbytes, "nvme", HOST, "read state", subgroup.index, allocates=buffers)

    with patch.dict(BUILT_IN, {"greedy": Greedy}):
        result = Case("greedy").simulate()
        assert not result.fits
        verdict: Any = result.verdict
        assert (verdict.tier, verdict.asked_bytes, verdict.capacity_bytes) == ("swap buffers", 4, 3)
        assert verdict.phase == "update"
