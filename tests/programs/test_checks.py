"""Schedules with a mistake each, and the one message that names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU
from offsim.programs.checks import ScheduleError
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers import OffloadSchedule
from offsim.schedulers.registry import BUILT_IN
from offsim.schedulers.roundpipe import RoundPipe
from offsim.schedulers.zero2_offload import Zero2Offload
from offsim.states.pool import Pool
from offsim.testing import Case


class Plain(OffloadSchedule):
    """What the schedules with a mistake are made from: each method is one step of a serial update."""

    name = "mine"

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        if last:
            yield from self.store(rank, self.elements(bucket))

    def store(self, rank: Rank, elements: int) -> Code:
        yield rank.d2h(rank.reduce_stream, BF16 * elements, "gradients", pinned=False)
        yield rank.upcast(elements, -1)

    def update(self, rank: Rank) -> Code:
        for subgroup in self.subgroups:
            yield from self.step(rank, subgroup)

    def step(self, rank: Rank, subgroup: Subgroup) -> Code:
        yield rank.cpu_adam(subgroup.elements, subgroup.index)
        yield from self.upload(rank, subgroup)

    def upload(self, rank: Rank, subgroup: Subgroup) -> Code:
        copied = rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
        self.written(rank, subgroup, copied)
        yield copied


def simulate(mistaken: type[OffloadSchedule], **training: Any) -> Any:
    case = Case("mine", training=training)
    if 3 not in mistaken.stages:
        case = case.on(zero_stage=mistaken.stages[-1])
    with patch.dict(BUILT_IN, {"mine": mistaken}):
        return case.simulate()


def mistake(name: str, message: str, base: type[OffloadSchedule] = Plain, **training: Any) -> Callable[..., Any]:
    """Test that `base` with this method in place of its own is refused with a message."""

    def test(method: Callable[..., Any]) -> Callable[[], None]:
        def run() -> None:
            with pytest.raises(ScheduleError, match=message) as caught:
                simulate(type("Mine", (base,), {"name": "mine", name: method}), **training)
            assert re.match(rf"({re.escape(__file__)}:\d+: )?scheduler mine", str(caught.value))

        return run

    return test


def test_without_a_mistake_it_runs() -> None:
    assert simulate(Plain).iteration_s > 0
    assert simulate(Plain, global_batch=6).iteration_s > 0


# Updates


@mistake("step", r"scheduler mine, sub-group 0, iteration 1, rank 0: found no update, expected one in each iteration")
def test_an_update_left_out(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    yield from self.upload(rank, subgroup)


@mistake("step", r"sub-group 3, iteration 1, rank 0: found 2 updates, expected one in each iteration")
def test_two_updates(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    for _ in range(1 + (subgroup.index == 3)):
        yield rank.cpu_adam(subgroup.elements, subgroup.index)
    yield from self.upload(rank, subgroup)


@mistake("step", r"sub-group 0, iteration 1, rank 0: found 0.5 updates")
def test_half_an_update(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    yield rank.cpu_adam(subgroup.elements / 2, subgroup.index)
    yield from self.upload(rank, subgroup)


@mistake("step", r"sub-group 99, iteration 1, rank 0: found 'CPU Adam 99', expected 0 to \d+")
def test_an_update_of_nothing(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    yield rank.cpu_adam(subgroup.elements, subgroup.index)
    yield rank.cpu_adam(1, 99)
    yield from self.upload(rank, subgroup)


# Gradients


@mistake("gradient", r"sub-group 0, iteration 1, rank 0: 'CPU Adam 0' begins when 0 B of gradients have left the GPU")
def test_gradients_that_never_leave(self: Any, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
    yield rank.elementwise(rank.reduce_stream, "d2d", BF16 * bucket.elements, "accumulate gradients")


@mistake("gradient", r"sub-group 0, iteration \d+, rank 0: .* its gradients are not there")
def test_gradients_that_come_too_late(self: Any, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
    rank.d2h(rank.stream("slow"), 500 * BF16 * self.elements(bucket), "gradients", after=[rank.reduce_stream.tail])
    yield from ()


class Early(Plain):
    """Updates are in backward."""

    def step(self, rank: Rank, subgroup: Subgroup) -> Code:
        yield from self.upload(rank, subgroup)


@mistake(
    "gradient", r"sub-group \d+, iteration 1, .*: 'GPU AdamW \d+' begins .* before its gradients are red", base=Early
)
def test_an_update_before_the_reduction(self: Any, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
    self.accumulate_on_host(rank, self.elements(bucket), first)
    for index, share in bucket.shares:
        rank.gpu_adam(share, index)
    yield from ()


@mistake("gradient", r"backward of .*: sub-groups .*: gradients of several micro-steps went nowhere", global_batch=6)
def test_gradients_of_earlier_micro_steps(self: Any, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
    if last:
        yield from self.store(rank, self.elements(bucket))


# Parameters


@mistake("upload", r"reads the parameters of sub-group 0 as the update of iteration 0 left them")
def test_parameters_never_written(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    yield rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)


@mistake("upload", r"sub-group 3, iteration 1, rank 0: found .* B of uploads after updates, expected at least")
def test_a_missing_upload(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    if subgroup.index != 3:
        yield rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
    self.written(rank, subgroup, None)


@mistake("step", r"sub-group 0, iteration 1, rank 0: parameters are said to be written by 'upload parameters', which e")
def test_an_upload_before_the_update(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    yield from self.upload(rank, subgroup)
    yield rank.cpu_adam(subgroup.elements, subgroup.index)


@mistake("step", r"sub-group 0, iteration 1, rank 0: found .* B to the GPU, expected at least .* optimizer state")
def test_state_that_stays_where_it_is(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    rank.gpu_adam(subgroup.elements, subgroup.index)
    nbytes = (FP32 + BF16) * subgroup.elements
    self.written(rank, subgroup, rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast", subgroup.index))
    yield rank.wait(rank.compute_stream)


@mistake("fetch", r"forward of iteration 1, .*: 'layer 0 forward' has no parameters: expected an all-gather")
def test_no_gather(self: Any, rank: Rank, wanted: Fetch) -> Code:
    yield from ()
    return rank.all_of(wanted.after)


@mistake("fetch", r"sub-group \d, iteration 1, .*: 'layer 0 forward' begins before 'all-gather layer 0' ends")
def test_nobody_waits_for_the_gather(self: Any, rank: Rank, wanted: Fetch) -> Code:
    yield from OffloadSchedule.fetch(self, rank, wanted)


class Slow(Plain):
    """Uploads reach into the next forward."""

    def upload(self, rank: Rank, subgroup: Subgroup) -> Code:
        yield from ()
        nbytes = 30 * BF16 * subgroup.elements
        self.written(rank, subgroup, rank.h2d(rank.stream("upload"), nbytes, "upload parameters", subgroup.index))


@mistake(
    "fetch", r"sub-group \d, iteration \d, .*: 'layer 0 forward' begins before 'upload parameters' ends", base=Slow
)
def test_nobody_waits_for_the_upload(self: Any, rank: Rank, wanted: Fetch) -> Code:
    yield from ()
    return rank.all_gather(BF16 * wanted.elements, wanted.layer, (), wanted.memory)


def test_kernels_wait_for_slow_uploads() -> None:
    assert simulate(type("Mine", (Slow,), {"name": "mine"})).iteration_s > simulate(Plain).iteration_s


@mistake("gather_updated", r"found 0 B gathered .*, expected at least", base=Zero2Offload)
def test_updated_parameters_stay_where_they_are(self: Any, rank: Rank) -> Code:
    yield from ()


# What blocks


@mistake("step", r"sub-group 0: 'CPU Adam 0' keeps the host thread busy, which went on without waiting for its end")
def test_work_of_the_host_that_it_does_not_wait_for(self: Any, rank: Rank, subgroup: Subgroup) -> Code:
    rank.cpu_adam(subgroup.elements, subgroup.index)
    yield from self.upload(rank, subgroup)


@mistake("store", r"'gradients' keeps the host thread busy")
def test_a_pageable_copy_that_nobody_waits_for(self: Any, rank: Rank, elements: int) -> Code:
    rank.d2h(rank.reduce_stream, BF16 * elements, "gradients", pinned=False)
    yield from ()


@mistake("update", r"'CPU Adam 0' keeps the optimizer busy")
def test_work_at_the_end_of_a_thread(self: Any, rank: Rank) -> Code:
    def late(subgroup: Subgroup) -> Code:
        yield from ()
        rank.cpu_adam(subgroup.elements, subgroup.index, thread=rank.thread("optimizer"))

    for subgroup in self.subgroups:
        yield rank.spawn("optimizer", late(subgroup))
        yield from self.upload(rank, subgroup)


# Code


@mistake("update", r"test_checks.py:\d+: scheduler mine: `step\(...\)` was called and not run, expected `yield from`")
def test_code_that_is_not_run(self: Any, rank: Rank) -> Code:
    yield from ()
    for subgroup in self.subgroups:
        self.step(rank, subgroup)


@mistake("update", r"found `yield` of step\(...\), expected an operation: expected `yield from` before code")
def test_code_that_is_yielded(self: Any, rank: Rank) -> Code:
    for subgroup in self.subgroups:
        yield self.step(rank, subgroup)


@mistake(
    "update", r"test_checks.py:\d+: scheduler mine, .* found no `yield` in test_a_hook_without_yield, expected one"
)
def test_a_hook_without_yield(self: Any, rank: Rank) -> None:
    rank.wait(rank.compute_stream)


@mistake("update", r"test_checks.py:\d+: scheduler mine, update of .*: AttributeError: 'Rank' object has no .* 'copy'")
def test_a_command_that_there_is_not(self: Any, rank: Rank) -> Code:
    yield rank.copy(1e9)  # type: ignore[attr-defined]


@mistake("place", r"test_checks.py:\d+: scheduler mine, before the first iteration: KeyError: 'disk'")
def test_a_tier_that_there_is_not(self: Any, rank: Rank) -> None:
    rank.tier("disk")


def test_a_hook_that_there_is_not() -> None:
    mistaken = type("Mine", (OffloadSchedule,), {"name": "mine", "update": Plain.update, "step": Plain.step})
    with pytest.raises(ScheduleError, match=r"scheduler mine, backward of .*: found no hook `gradient`"):
        simulate(mistaken)


@mistake("place", r"rank 0 waits for 'take', which waits for room in buffers")
def test_buffers_that_never_come_back(self: Any, rank: Rank) -> None:
    OffloadSchedule.place(self, rank)
    pool = Pool(rank.host_memory, "buffers", 1, 1e6)

    def take(_: Rank) -> Code:
        for _ in range(2):
            yield rank.move(1e6, "host", GPU, "take", allocates=pool.buffers())

    self.update = take


def test_two_threads_that_wait_for_each_other() -> None:
    def update(self: Any, rank: Rank) -> Code:
        ends: list[Operation] = []

        def first() -> Code:
            yield rank.d2h(rank.stream("a"), 1e6, "before")
            yield ends[1]

        def second() -> Code:
            yield ends[0]

        ends += [rank.spawn("one", first()), rank.spawn("two", second())]
        yield ends[0]

    with pytest.raises(ScheduleError) as caught:
        simulate(type("Mine", (Plain,), {"name": "mine", "update": update}))
    text = str(caught.value)
    assert "nothing is left to run: host thread of rank 0 waits for 'end of one'" in text
    assert "one of rank 0 waits for 'end of two'" in text
    assert "two of rank 0 waits for 'end of one'" in text


def test_no_frame_of_the_simulator_is_in_the_cause() -> None:
    mistaken = type("Mine", (Plain,), {"name": "mine", "update": lambda self, rank: iter([rank.copy()])})
    with pytest.raises(ScheduleError) as caught:
        simulate(mistaken)
    cause = caught.value.__cause__
    assert isinstance(cause, AttributeError)
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_filename == __file__


# What schedules may do


def test_a_schedule_that_says_so_may_be_late_and_approximate() -> None:
    """Delayed and approximate schedules of offsim pass; their mistakes do not."""
    with patch.dict(BUILT_IN, {"mine": type("Mine", (RoundPipe,), {"name": "mine"})}):
        assert Case("mine").simulate().iteration_s > 0

    def never(self: Any, rank: Rank) -> Code:
        yield from self.upload(rank, rank.iteration)

    zenflow = BUILT_IN["zenflow"]
    with pytest.raises(ScheduleError, match=r"sub-group 0, iteration \d+, .*: found no update, expected one in each p"):
        simulate(type("Mine", (zenflow,), {"name": "mine", "update": never}))  # type: ignore[arg-type]
