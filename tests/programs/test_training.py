"""GPU memory of forward and backward, against what the layers' kernels hold."""

from __future__ import annotations

from typing import Any

import pytest
from small_scenarios import profile, scenario, small_buckets

from offsim.programs.run import Run
from offsim.programs.training import ACTIVATIONS, REDUCED, WORKING_SET
from offsim.results.simulate import simulate

KERNELS: list[dict[str, Any]] = [
    {"flash_attention": True},
    {"flash_attention": False},
    {"flash_attention": False, "softmax_fp32": True, "dropout": True},
]


def run_of(checkpointing: bool, model: dict[str, Any], ranks: int = 1, **training: Any) -> Run:
    batch = {"micro_batch": 8, "global_batch": 8 * ranks, "data_parallel": ranks}
    source = scenario(model=model, training={**batch, "activation_checkpointing": checkpointing, **training})
    return simulate(source, profile=profile()).run


def most(run: Run, occupant: str) -> float:
    return max(held for _, name, held, _ in run.ranks[0].gpu_memory.series if name == occupant)


@pytest.mark.parametrize("model", KERNELS)
@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_one_layer_or_all_are_live(checkpointing: bool, model: dict[str, Any], tensor_parallel: int) -> None:
    """With checkpointing one beside the inputs of all; what is kept of a layer is not part of its working set."""
    run = run_of(checkpointing, model, tensor_parallel=tensor_parallel)
    w = run.workload
    live = max(w.layer_forward_bytes, w.layer_backward_bytes, w.layer_flush_bytes)
    kept = w.hidden_bytes if checkpointing else w.layer_activation_bytes
    assert most(run, WORKING_SET) == pytest.approx(live - kept)
    assert most(run, ACTIVATIONS) == w.model.layers * kept + 2 * w.hidden_bytes


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_reduction_holds_the_bucket_again_and_a_gradient_in_double_precision(ranks: int) -> None:
    with small_buckets():
        run = run_of(True, {}, ranks)
    buckets = [bucket for _, bucket in run.workload.buckets(60_000)]
    assert len(buckets) > 2
    assert most(run, REDUCED) == max(2 * bucket.elements + 8 * bucket.largest for bucket in buckets)


def test_a_gradient_that_is_reduced_alone_is_not_copied() -> None:
    with small_buckets(1):
        run = run_of(True, {}, 2)
    buckets = [bucket for _, bucket in run.workload.buckets(1)]
    assert most(run, REDUCED) == 8 * max(bucket.largest for bucket in buckets)


def test_buckets_that_an_mlp_overflows_are_reduced_beside_attention() -> None:
    """The first bucket takes the head's 8,192 gradients and the last layer's 24,640 of the down and up projections."""
    with small_buckets(20_000):
        early = run_of(True, {})
    (layer, first), *_ = early.workload.buckets(20_000)
    assert (layer, first.elements, first.in_mlp) == (3, 8_192 + 64 + 64 * 128, True)
    with small_buckets(8_192 + 64 + 3 * 64 * 128 + 64):
        late = run_of(True, {})
    assert not late.workload.buckets(8_192 + 64 + 3 * 64 * 128 + 64)[0][1].in_mlp
