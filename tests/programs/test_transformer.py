"""Parameters, sub-groups, buckets and kernels against closed forms, and against the runs that were measured."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import offsim.validation
from offsim.platform.hardware import Gpu
from offsim.programs.transformer import Kernel, Workload, build_buckets, build_subgroups, cost
from offsim.scenario import Model, Training

MEASURED_RUNS = Path(offsim.validation.__file__).with_name("measured_runs.csv")

MODEL = {
    "layers": 40,
    "hidden": 5120,
    "ffn_hidden": 20480,
    "heads": 64,
    "kv_heads": 4,
    "vocab": 50304,
    "sequence": 2048,
    "flash_attention": False,
}
GPU = Gpu(
    memory_bytes=80e9,
    reserved_bytes=0,
    matrix_flops_per_s=1e12,
    kernel_latency_s=1e-5,
    hbm_bytes_per_s=1e9,
    adam_params_per_s=1e9,
    peak_flops_per_s=2e12,
)


def workload(
    micro_batch: int = 1,
    data_parallel: int = 1,
    tensor_parallel: int = 1,
    subgroup_size: int = 100_000_000,
    **model: Any,
) -> Workload:
    training = Training(
        micro_batch=micro_batch,
        global_batch=micro_batch * data_parallel,
        data_parallel=data_parallel,
        tensor_parallel=tensor_parallel,
        subgroup_size=subgroup_size,
    )
    return Workload(Model(**{**MODEL, **model}), training)


def flops(kernels: Iterable[Kernel]) -> float:
    return sum(kernel.flops for kernel in kernels)


def moved(kernels: Iterable[Kernel]) -> float:
    return sum(kernel.nbytes for kernel in kernels)


def matrix_products(w: Workload, kernels: Iterable[Kernel]) -> list[Kernel]:
    """Those of linear layers."""
    linears = {kernel for kernel in w._layer_linears() if kernel.flops}
    return [kernel for kernel in kernels if kernel in linears]


# Parameters


@pytest.mark.parametrize("swiglu", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tensor_parallel", [1, 2, 4])
def test_parameters_in_closed_form(swiglu: bool, tied: bool, tensor_parallel: int) -> None:
    w = workload(swiglu=swiglu, tied_embeddings=tied, tensor_parallel=tensor_parallel)
    hidden, ffn, kv = 5120, 20480, 4 * 5120 // 64
    vocabulary = (1 if tied else 2) * 50304 * hidden // tensor_parallel
    matrices = (2 * hidden**2 + 2 * hidden * kv + (3 if swiglu else 2) * hidden * ffn) // tensor_parallel
    assert w.parameters == vocabulary + hidden + 40 * (2 * hidden + matrices)
    assert w.layer_elements == 2 * hidden + matrices
    assert w.vocab_elements == 50304 * hidden // tensor_parallel


def test_full_attention_has_keys_and_values_of_all_heads() -> None:
    grouped, full = workload(kv_heads=4), workload(kv_heads=64)
    assert grouped.kv_hidden == 320
    assert full.kv_hidden == 5120
    assert full.parameters - grouped.parameters == 40 * 2 * 5120 * (5120 - 320)


def test_an_untied_head_comes_last_and_is_as_large_as_the_embedding() -> None:
    tied, untied = workload(tied_embeddings=True), workload(tied_embeddings=False)
    assert untied.tensors[:-1] == tied.tensors
    assert untied.tensors[-1].layer == 40
    assert untied.tensors[-1].elements == untied.tensors[0].elements == untied.vocab_elements
    assert [t.layer for t in untied.tensors if 0 <= t.layer < 40] == sorted(list(range(40)) * 7)


@pytest.mark.parametrize("data_parallel", [1, 3, 4, 7, 16])
def test_a_partition_is_padded_per_parameter(data_parallel: int) -> None:
    w = workload(data_parallel=data_parallel)
    assert all(
        0 <= share * data_parallel - tensor.elements < data_parallel
        for share, tensor in zip(w.shares, w.tensors, strict=True)
    )
    assert w.partition == sum(w.shares) == sum(s.elements for s in w.subgroups)
    assert 0 <= w.partition * data_parallel - w.parameters < data_parallel * len(w.tensors)
    assert workload().partition == workload().parameters


# Sub-groups


@settings(max_examples=200)
@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(1, 3000))
def test_subgroups_are_consecutive_whole_and_closed_when_full(shares: list[int], size: int) -> None:
    groups = build_subgroups(shares, size)
    assert list(chain.from_iterable(groups)) == list(range(len(shares)))
    for group in groups[:-1]:
        held = [shares[i] for i in group]
        assert sum(held) >= size > sum(held[:-1])
    assert all(groups)


@pytest.mark.parametrize(
    ("shares", "size", "expected"),
    [
        ([], 10, []),
        ([3], 10, [[0]]),
        ([10], 10, [[0]]),
        ([4, 4, 4, 4], 10, [[0, 1, 2], [3]]),
        ([4, 6, 5, 5], 10, [[0, 1], [2, 3]]),
        ([30, 1, 30], 10, [[0], [1, 2]]),
    ],
)
def test_subgroups_worked_out_by_hand(shares: list[int], size: int, expected: list[list[int]]) -> None:
    assert build_subgroups(shares, size) == expected


def test_smaller_subgroups_are_more() -> None:
    counts = [len(workload(subgroup_size=size).subgroups) for size in (10**10, 10**9, 10**8, 10**7)]
    assert counts == sorted(counts)
    assert [s.index for s in workload().subgroups] == list(range(counts[2]))


# Buckets


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    return [
        (elements, -(-elements // 4), draw(st.integers(0, 5)))
        for elements in draw(st.lists(st.integers(1, 900), max_size=40))
    ]


@settings(max_examples=200)
@given(tensors(), st.integers(1, 1500))
def test_a_bucket_is_flushed_by_the_tensor_that_would_overflow_it(
    tensors: list[tuple[int, int, int]], size: int
) -> None:
    buckets = build_buckets(tensors, size)
    assert list(chain.from_iterable(buckets)) == tensors
    held = [sum(elements for elements, _, _ in bucket) for bucket in buckets]
    assert all(elements <= size or len(bucket) == 1 for elements, bucket in zip(held, buckets, strict=True))
    assert all(elements + following[0][0] > size for elements, following in zip(held, buckets[1:], strict=False))


@pytest.mark.parametrize("size", [50_000_000, 500_000_000, 10**12])
@pytest.mark.parametrize("data_parallel", [1, 4, 7])
@pytest.mark.parametrize("tied", [True, False])
def test_buckets_hold_every_gradient_once(size: int, data_parallel: int, tied: bool) -> None:
    w = workload(data_parallel=data_parallel, tied_embeddings=tied)
    buckets = w.buckets(size)
    largest = max(t.elements for t in w.tensors)
    assert sum(bucket.elements for _, bucket in buckets) == w.parameters
    assert all(bucket.elements <= max(size, largest) for _, bucket in buckets)
    per_subgroup = dict.fromkeys(range(len(w.subgroups)), 0)
    for _, bucket in buckets:
        for subgroup, share in bucket.shares:
            per_subgroup[subgroup] += share
    assert per_subgroup == {s.index: s.elements for s in w.subgroups}


def test_buckets_fill_from_the_last_layer_to_the_first() -> None:
    order = [layer for layer, _ in workload().buckets(500_000_000)]
    assert order == sorted(order, reverse=True)
    assert all(0 <= layer < 40 for layer in order[:-2])
    assert order[-1] == -1  # the embedding's gradient is the last


def test_a_bucket_filled_by_the_head_alone_is_not_held_until_the_end() -> None:
    """With a large vocabulary the head overflows a bucket before the first layer's backward."""
    order = [layer for layer, _ in workload(vocab=128256, hidden=8192, ffn_hidden=28672).buckets(500_000_000)]
    assert order[0] >= 39
    assert order == sorted(order, reverse=True)


# Kernels


@pytest.mark.parametrize("swiglu", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("kv_heads", [4, 64])
def test_forward_flops_are_those_of_the_textbook(swiglu: bool, micro_batch: int, kv_heads: int) -> None:
    """2 FLOPs per token and matrix parameter, and 4 b s^2 h for query x key and probabilities x value."""
    w = workload(micro_batch, swiglu=swiglu, kv_heads=kv_heads)
    tokens, hidden, sequence = micro_batch * 2048, 5120, 2048
    matrices = w.layer_elements - 2 * hidden
    assert w.tokens == tokens
    assert flops(w.layer_forward()) == 2 * tokens * matrices + 4 * micro_batch * sequence**2 * hidden
    assert flops(w.head_forward()) == 2 * tokens * w.vocab_elements


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_backward_has_two_products_per_linear(flash: bool, tensor_parallel: int) -> None:
    w = workload(flash_attention=flash, tensor_parallel=tensor_parallel)
    forward, backward = (matrix_products(w, kernels) for kernels in (w.layer_forward(), w.layer_backward()))
    assert len(backward) == 2 * len(forward) == 10
    assert flops(backward) == 2 * flops(forward)
    assert flops(w.head_backward()) == 2 * flops(w.head_forward())


def test_backward_of_attention_has_twice_the_flops_and_with_flash_recomputes_the_scores() -> None:
    scores = 2048**2 * 5120
    plain, flash = workload(), workload(flash_attention=True)
    linears = flops(plain._layer_linears())
    assert flops(plain.layer_backward()) - 2 * linears == 2 * (flops(plain.layer_forward()) - linears) == 8 * scores
    # Causal blocks are skipped: half of 4 products of b s^2 h forward, of 10 backward.
    assert flops(flash.layer_forward()) - linears == 2 * scores
    assert flops(flash.layer_backward()) - 2 * linears == 5 * scores


def test_model_flops_are_six_per_parameter_and_token() -> None:
    """Kaplan et al., section 2.1: 6 N tokens, N without embedding; attention adds 12 b s^2 h a layer."""
    w = workload(tied_embeddings=False)
    norms = (2 * 40 + 1) * 5120
    matrices = w.parameters - w.vocab_elements - norms
    assert w.model_flops() == 6 * matrices * 2048 + 40 * 12 * 2048**2 * 5120


def test_traffic_of_flash_attention_grows_with_the_sequence_that_of_plain_attention_with_its_square() -> None:
    for short, growth in ((workload(flash_attention=True), 2), (workload(), 4)):
        long = workload(flash_attention=short.model.flash_attention, sequence=4096)
        for attention in (Workload._attention_forward, Workload._attention_backward):
            assert moved(attention(long)) == growth * moved(attention(short))


# Activations: bytes in units of tokens x hidden, and of elements of the attention matrices

GPT = {"swiglu": False, "kv_heads": 64}
UNFUSED = [  # softmax in fp32, dropout; kept, most in forward, most in backward, static buffer
    (False, False, 2, 4, 4, 2),
    (False, True, 5, 7, 7, 2),
    (True, False, 6, 8, 10, 0),
    (True, True, 7, 9, 10, 0),
]


@pytest.mark.parametrize("tensor_parallel", [1, 2, 8])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_a_layer_keeps_what_korthikanti_et_al_count(micro_batch: int, tensor_parallel: int) -> None:
    """Reducing Activation Recomputation, 2022, equations 1 and 2: s b h (10 + 24 / t + 5 a s / h t)."""
    w = workload(micro_batch, tensor_parallel=tensor_parallel, dropout=True, **GPT)
    scores = 5 * 64 * 2048 / 5120 / tensor_parallel
    assert w.layer_activation_bytes == pytest.approx(w.tokens * 5120 * (10 + 24 / tensor_parallel + scores))
    assert w.hidden_bytes == w.tokens * 5120 * 2  # section 5: full recomputation keeps 2 s b h


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize(("softmax_fp32", "dropout", "kept", "forward", "backward", "buffer"), UNFUSED)
def test_unfused_attention_holds_its_matrices(
    softmax_fp32: bool, dropout: bool, kept: int, forward: int, backward: int, buffer: int, tensor_parallel: int
) -> None:
    """At a sequence so long that the matrices are all that counts."""
    long = {"sequence": 2**22, "dropout": dropout, "tensor_parallel": tensor_parallel}
    w = workload(softmax_fp32=softmax_fp32, **long)
    fused = workload(softmax_fp32=softmax_fp32, flash_attention=True, kv_heads=64, **long)
    matrices = 64 / tensor_parallel * 2**44
    assert w.layer_activation_bytes - fused.layer_activation_bytes == kept * matrices
    assert w.layer_forward_bytes == pytest.approx(forward * matrices, rel=1e-2)
    assert w.layer_backward_bytes == pytest.approx(backward * matrices, rel=1e-2)
    assert w.score_buffer_bytes == buffer * matrices
    assert fused.score_buffer_bytes == 0


@pytest.mark.parametrize(
    ("model", "kept", "backward"),
    [
        ({"swiglu": False}, 4 + 2 * 4, 4),  # gradient of the activation's input
        ({}, 4 + 4 * 4, 2 * 4),  # gate, its activation, up and product; gradients of two
        ({"fused_swiglu": True}, 4 + 3 * 4, 4),  # the activation is computed again; gradients in place
    ],
)
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_layers_with_fused_attention(model: dict[str, Any], kept: int, backward: int, tensor_parallel: int) -> None:
    """Of tokens x hidden elements: two norms' inputs and outputs are whole; query, key, value, context, MLP split."""
    w = workload(tensor_parallel=tensor_parallel, flash_attention=True, kv_heads=64, **model)
    split = 2 * 2048 * 5120 / tensor_parallel
    assert w.layer_activation_bytes == 4 * w.hidden_bytes + kept * split
    assert w.layer_forward_bytes == w.layer_activation_bytes  # nothing else is made
    assert w.layer_backward_bytes - w.layer_activation_bytes == backward * split


def test_keys_and_values_are_repeated_for_their_heads_only_without_a_fused_kernel() -> None:
    def growth(flash: bool) -> float:
        grouped, full = (workload(flash_attention=flash, kv_heads=heads) for heads in (4, 64))
        return full.layer_activation_bytes - grouped.layer_activation_bytes

    assert growth(False) == 0
    assert growth(True) == 2 * 2 * 2048 * (5120 - 320)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("swiglu", [True, False])
def test_tensor_parallelism_divides_what_it_splits(flash: bool, swiglu: bool) -> None:
    alone, half = (workload(tensor_parallel=n, flash_attention=flash, swiglu=swiglu) for n in (1, 2))
    norms = (2 * 40 + 1) * 5120
    assert 2 * (half.parameters - norms) == alone.parameters - norms
    for passes in (Workload.layer_forward, Workload.layer_backward, Workload.head_forward, Workload.head_backward):
        assert 2 * flops(passes(half)) == flops(passes(alone))
    assert 2 * half.attention_scores == alone.attention_scores
    assert 2 * half.logits == alone.logits
    assert half.hidden_bytes == alone.hidden_bytes  # hidden states are whole on every rank
    assert half.layer_activation_bytes < alone.layer_activation_bytes < 2 * half.layer_activation_bytes


@pytest.mark.parametrize("batches", [2, 8])
def test_flops_and_activations_grow_with_the_micro_batch(batches: int) -> None:
    one, many = workload(1), workload(batches)
    assert many.model_flops() == batches * one.model_flops()
    assert many.layer_activation_bytes == batches * one.layer_activation_bytes
    assert many.hidden_bytes == batches * one.hidden_bytes == batches * 2 * 2048 * 5120
    assert many.parameters == one.parameters


@pytest.mark.parametrize(
    ("kernel", "seconds"),
    [
        (Kernel(3e12, 1e9), 3 + 1e-5),  # limited by FLOPs
        (Kernel(1e12, 3e9), 3 + 1e-5),  # by bytes
        (Kernel(0, 2e9, launches=3), 2 + 3e-5),
        (Kernel(0, 0), 1e-5),
    ],
)
def test_a_kernel_takes_the_longer_of_flops_and_bytes_and_a_fixed_time(kernel: Kernel, seconds: float) -> None:
    assert kernel.seconds(GPU) == pytest.approx(seconds)


def test_costs_add_up() -> None:
    kernels = [Kernel(1e12, 1e9), Kernel(0, 2e9, 2), Kernel(5e11, 0)]
    total = cost(kernels, GPU)
    assert total.seconds == pytest.approx(sum(k.seconds(GPU) for k in kernels))
    assert (total.flops, total.nbytes) == (1.5e12, 3e9)


# Measured runs


def measured_rows() -> list[dict[str, str]]:
    with MEASURED_RUNS.open(newline="") as file:
        return list(csv.DictReader(file))


def test_sizes_equal_those_of_every_measured_run() -> None:
    rows = measured_rows()
    assert len(rows) == 80
    names = ("params_per_tp_rank", "subgroups", "largest_subgroup")
    predicted = []
    for row in rows:
        model = Model(
            layers=int(row["layers"]),
            hidden=int(row["hidden"]),
            ffn_hidden=int(row["ffn_hidden"]),
            heads=int(row["heads"]),
            kv_heads=int(row["kv_heads"]),
            vocab=int(row["vocab"]),
            sequence=int(row["seq"]),
            swiglu=row["swiglu"] == "True",
            tied_embeddings=row["untied"] != "True",
        )
        training = Training(
            global_batch=int(row["global_batch"]),
            micro_batch=int(row["micro_batch"]),
            data_parallel=int(row["dp"]),
            tensor_parallel=int(row["tp"]),
            subgroup_size=int(row["subgroup_size"]),
        )
        w = Workload(model, training)
        predicted.append((w.parameters, len(w.subgroups), max(s.elements for s in w.subgroups)))
    assert predicted == [tuple(int(row[name]) for name in names) for row in rows]
