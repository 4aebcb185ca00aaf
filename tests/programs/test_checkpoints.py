"""Checkpoints: what is written, what training waits for, and a pool that is full or too small."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from offsim import InputError, simulate
from offsim.programs.run import Run
from offsim.results.result import Result
from tests.small_scenarios import TIERS, profile, scenario, small_buckets

ALONE = {"training": {"data_parallel": 1, "global_batch": 1}}
NVME = {"nvme": {**TIERS["nvme"], "latency_s": 0.0}}
SLOW = {"nvme": {**TIERS["nvme"], "latency_s": 0.0, "write_bytes_per_s": 1e7}}


def run(
    checkpoint: Mapping[str, Any] | None,
    tiers: Mapping[str, Mapping[str, Any]] = NVME,
    scheduler: str = "no_offload",
    sizes: Mapping[str, Any] = ALONE,
    **sections: Any,
) -> Result:
    given = {**scenario(scheduler, **sizes), **({"checkpoint": dict(checkpoint)} if checkpoint else {})}
    with small_buckets():
        return simulate(given, profile=profile(tiers=tiers, **sections))


def saved(of: Run) -> dict[str, float]:
    """Bytes of each kind of a checkpoint's operations, a mean of the measured iterations."""
    found: dict[str, float] = {}
    for operation in of.operations:
        if operation.name.startswith(("copy p", "copy m", "copy v", "save ")) and operation.iteration >= of.first:
            found[operation.kind] = found.get(operation.kind, 0.0) + operation.bytes / of.iterations
    return found


def largest(of: Run) -> float:
    """Bytes of the largest tensor that is saved."""
    return 4 * max(s.elements for s in of.workload.subgroups)


def datastates(cache: float, **more: Any) -> dict[str, Any]:
    return {"engine": "datastates", "host_cache_bytes": cache, **more}


@pytest.mark.parametrize("tensors", [1, 2, 5])
@pytest.mark.parametrize("commit", ["copied", "written"])
def test_nothing_is_lost_however_small_the_pool(tensors: int, commit: str) -> None:
    """12 B a parameter of the optimizer and 2 of the model, copied and written."""
    cache = tensors * largest(run(None).run)
    result = run(datastates(cache, commit=commit))
    of = result.run
    assert of.settled
    assert saved(of) == pytest.approx({"d2h": 14 * of.workload.partition, "nvme write": 14 * of.workload.partition})
    assert {o.name: o.bytes for o in of.operations if o.name.startswith("save")}.keys() == {
        "save parameters", "save p", "save m", "save v",
    }  # fmt: skip


def test_a_tensor_larger_than_the_pool_is_a_verdict() -> None:
    result = run(datastates(largest(run(None).run) - 1))
    assert not result.fits
    assert "checkpoint cache" in str(result.verdict)


def test_with_room_and_long_kernels_nothing_is_waited_for() -> None:
    slow = {"gpu": {"matrix_flops_per_s": 1e9}}
    plain, behind = run(None, **slow), run(datastates(1e9), **slow)
    assert behind.iteration_s == pytest.approx(plain.iteration_s, rel=1e-6)
    assert run({"engine": "blocking"}, **slow).iteration_s > 1.005 * plain.iteration_s


def test_blocking_takes_a_pageable_copy_and_a_write_of_each_tensor() -> None:
    plain, blocking = run(None), run({"engine": "blocking"})
    bytes_saved = 14 * plain.run.workload.partition
    latencies = 4 * len(plain.run.workload.subgroups) * 1e-6
    expected = bytes_saved / 4e9 + bytes_saved / 4e9 + latencies
    assert blocking.iteration_s - plain.iteration_s == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("commit", ["copied", "written"])
def test_slow_storage_limits_training_once_the_pool_is_full(commit: str) -> None:
    """Copies run at the rate of writes; waiting for files hides less than waiting for copies."""
    of = run(None).run
    seconds = 14 * of.workload.partition / 1e7
    result = run(datastates(largest(of), commit=commit), SLOW)
    if commit == "copied":
        assert result.iteration_s == pytest.approx(seconds, rel=0.05)
    assert result.iteration_s >= seconds * (1 - 1e-9)


def test_waiting_for_files_is_no_faster_than_waiting_for_copies() -> None:
    copied, written = (run(datastates(1e9, commit=commit), SLOW) for commit in ("copied", "written"))
    plain = run(None)
    update = plain.durations["update"]
    assert written.iteration_s == pytest.approx(14 * plain.run.workload.partition / 1e7 + update, rel=1e-3)
    assert copied.iteration_s < written.iteration_s


def test_every_third_iteration_saves_a_third() -> None:
    once, third = run({"engine": "blocking"}), run({"engine": "blocking", "every": 3})
    plain = run(None)
    assert third.run.iterations == 3
    assert 3 * (third.iteration_s - plain.iteration_s) == pytest.approx(once.iteration_s - plain.iteration_s)


@pytest.mark.parametrize("engine", ["blocking", "datastates"])
@pytest.mark.parametrize("scheduler", ["zero3_offload", "zero_infinity", "stronghold", "deep_optimizer_states"])
def test_state_off_the_gpu_is_saved_from_where_it_is(scheduler: str, engine: str) -> None:
    asked = datastates(1e9) if engine == "datastates" else {"engine": engine}
    of = run(asked, scheduler=scheduler).run
    plain = run(None, scheduler=scheduler).run
    on_gpu = scheduler in ("zero3_offload", "zero_infinity", "deep_optimizer_states")
    found = saved(of)
    partition = of.workload.partition
    assert found["nvme write"] == pytest.approx(14 * partition)
    assert found.get("nvme read", 0.0) == pytest.approx(12 * partition if scheduler == "zero_infinity" else 0)
    copied = [o for o in of.operations if o.name == "copy parameters" and o.iteration >= of.first]
    assert sum(o.bytes for o in copied) == pytest.approx(2 * partition * on_gpu * of.iterations)
    assert of.ended_at - of.started_at > plain.ended_at - plain.started_at


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"engine": "datastates"}, "checkpoint.host_cache_bytes"),
        ({"engine": "datastate"}, "datastates"),
        ({"engine": "blocking", "files": "host"}, "checkpoint keeps files in storage tiers (nvme)"),
        ({"engine": "blocking", "files": "nvm"}, "did you mean 'nvme'"),
    ],
)
def test_errors_name_what_was_expected(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        run(asked)
