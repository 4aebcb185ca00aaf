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


def test_kernels_launched_behind_a_reduce_scatter_wait_for_it() -> None:
    """So DeepSpeed's backward takes as long as if compute and reduce-scatters came after each other."""
    network = {"nic_bytes_per_s": 1e8}
    result = simulated(ASYNCHRONOUS, {"data_parallel": 8, "global_batch": 8}, interconnect=network)
    reduced = operations(result, "reduce_scatter")
    kernels = [o for o in operations(result, "compute") if o.phase == "backward"]
    assert reduced
    for one in reduced:
        assert all(o.started_at >= one.ended_at for o in kernels if o.index > one.index)
    with patch.object(Zero3Offload, "reduction_stops_compute", False):
        free = simulated(ASYNCHRONOUS, {"data_parallel": 8, "global_batch": 8}, interconnect=network)
    assert free.durations["backward"] < result.durations["backward"]
    assert free.durations["forward"] == pytest.approx(result.durations["forward"])


def test_other_systems_overlap_reduce_scatters() -> None:
    result = simulated("fsdp_offload", {"data_parallel": 8, "global_batch": 8}, interconnect={"nic_bytes_per_s": 1e8})
    kernels = [o for o in operations(result, "compute") if o.phase == "backward"]
    assert any(
        kernel.started_at < one.ended_at and kernel.index > one.index
        for one in operations(result, "reduce_scatter")
        for kernel in kernels
    )


def test_blocking_flushes_pay_for_the_fresh_pages_of_large_tensors() -> None:
    training = {"data_parallel": 1, "global_batch": 1}
    host = {"fresh_page_bytes_per_s": 1e9}
    small = simulated("zero3_offload", training, host=host).run
    assert not any(o.name == "fresh pages" for o in small.operations)
    limit = 2 * max(small.workload.shares)
    with patch("offsim.programs.transformer.REUSED_BYTES", limit):
        result = simulated("zero3_offload", training, host=host)
    pages = [o for o in operations(result, "host copy") if o.name == "fresh pages"]
    largest = sum(share for share in result.run.workload.shares if 2 * share == limit)
    assert sum(o.duration for o in pages) == pytest.approx(2 * largest / 1e9)
