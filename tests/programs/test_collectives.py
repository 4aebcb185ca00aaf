"""Collectives of data- and tensor-parallel ranks: their time in closed form, and what waits for them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from small_scenarios import profile, scenario, small_buckets

from offsim.engine import Operation
from offsim.programs.transformer import FP32, Kernel, cost
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.simulation import workload_of

TWO_NODES = {"data_parallel": 4, "tensor_parallel": 2, "global_batch": 4}
ASYNCHRONOUS = "zero3_offload_async_grads"


def simulated(scheduler: str, training: dict[str, Any], **sections: dict[str, Any]) -> Result:
    with small_buckets():
        return simulate(scenario(scheduler, training=training), profile=profile(**sections))


def operations(result: Result, *kinds: str) -> list[Operation]:
    return [o for o in result.run.operations if o.kind in kinds and o.iteration == result.run.last]


def test_tensor_parallel_ranks_stop_compute_to_all_reduce() -> None:
    """Two of hidden states in a layer's forward, two in its backward, and those of embedding, loss and head."""
    result = simulated("no_offload", {"data_parallel": 1, "tensor_parallel": 2, "global_batch": 1})
    workload, node = result.run.workload, result.run.profile
    rate, latency = node.interconnect.gpu_bytes_per_s, node.interconnect.collective_latency_s
    hidden = 2 * (workload.hidden_bytes / 2 / rate + latency)
    per_token = 2 * (FP32 * workload.tokens / 2 / rate + latency)
    expected: dict[str, tuple[list[Kernel], float]] = {
        "embedding": (workload.embedding_kernels(), hidden),
        "layer 0 forward": (workload.layer_forward(), 2 * hidden),
        "layer 0 backward": ([*workload.layer_forward(), *workload.layer_backward()], 4 * hidden),
        "head and loss": (workload.head_forward(), 3 * per_token),
        "head backward": (workload.head_backward(), hidden),
    }
    found = {o.name: o.duration for o in operations(result, "compute")}
    for name, (kernels, all_reduces) in expected.items():
        assert found[name] == pytest.approx(cost(kernels, node.gpu).seconds + all_reduces), name


@pytest.mark.parametrize(("shared", "rate"), [(None, 2e10), (1e10, 1e10)])
def test_rings_of_tensor_parallel_ranks_share_the_network(shared: float | None, rate: float) -> None:
    result = simulated(ASYNCHRONOUS, TWO_NODES, interconnect={"shared_nic_bytes_per_s": shared})
    assert (result.run.layout.nodes, result.run.layout.rings) == (2, 2)
    for gather in operations(result, "all_gather"):
        assert gather.duration == pytest.approx(gather.bytes * 2 / rate + 1e-6)


def test_one_ring_has_the_network_alone() -> None:
    slow = {"shared_nic_bytes_per_s": 1e9}
    alone = simulated(ASYNCHRONOUS, {"data_parallel": 8, "global_batch": 8}, interconnect=slow)
    for gather in operations(alone, "all_gather"):
        assert gather.duration == pytest.approx(gather.bytes / 2e10 + 1e-6)


SLOW = {"nic_bytes_per_s": 1e8}
EIGHT = {"data_parallel": 8, "global_batch": 8}


def test_backward_gathers_behind_reduce_scatters() -> None:
    """A communicator runs in order: with no layer gathered ahead, its kernels wait for gradients and for its gather."""
    result = simulated(ASYNCHRONOUS, EIGHT, interconnect=SLOW)
    backward = [o for o in operations(result, "compute", "all_gather", "reduce_scatter") if o.phase == "backward"]
    gathers = [o for o in backward if o.kind == "all_gather"]
    assert gathers
    for gather in gathers:
        behind = [o for o in backward if o.kind == "reduce_scatter" and o.index < gather.index]
        (again,) = (o for o in backward if o.name == f"layer {gather.layer} recomputation")
        (kernels,) = (o for o in backward if o.name == f"layer {gather.layer} backward")
        assert all(o.ended_at <= min(gather.started_at, again.started_at) for o in behind)
        assert again.started_at < gather.ended_at <= kernels.started_at
        assert again.ended_at <= kernels.started_at
    with patch.object(Zero3Offload, "gathers_late", False):
        early = simulated(ASYNCHRONOUS, EIGHT, interconnect=SLOW)
    assert early.durations["backward"] < result.durations["backward"]
    assert early.durations["forward"] == pytest.approx(result.durations["forward"])


def test_other_systems_gather_ahead() -> None:
    result = simulated("fsdp_offload", EIGHT, interconnect=SLOW)
    assert not any(o.name.endswith("recomputation") for o in operations(result, "compute"))


def test_blocking_flushes_pay_for_the_fresh_pages_of_large_tensors() -> None:
    training = {"data_parallel": 1, "global_batch": 1}
    host = {"fresh_page_bytes_per_s": 1e9}
    reused = simulated("zero3_offload", training, host=host)
    shares = reused.run.workload.shares
    workload_of.cache_clear()  # which lists buckets once
    with patch("offsim.programs.transformer.REUSED_BYTES", 2 * max(shares)):
        fresh = simulated("zero3_offload", training, host=host)
    workload_of.cache_clear()
    before, after = ([o for o in operations(each, "d2h") if o.name == "gradients"] for each in (reused, fresh))
    assert sum(o.bytes for o in after) == sum(o.bytes for o in before) == 2 * sum(shares)
    pages = 2 * sum(share for share in shares if share == max(shares)) / 1e9
    assert sum(o.duration for o in after) == pytest.approx(sum(o.duration for o in before) + pages)
