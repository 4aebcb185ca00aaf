"""Systems whose layers live in host memory, against what their papers and code add up to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from conformance import FREE, RANKS, Case, Facts, facts, free_but, last

from offsim.engine import Operation
from offsim.programs.run import Run
from offsim.results.result import Result
from offsim.states.pool import pinned_bytes
from offsim.testing import MODEL

ALONE = {"data_parallel": 1, "global_batch": 1}
SLOW_GPU = {"matrix_flops_per_s": 1e10, "hbm_bytes_per_s": FREE}
"""Kernels that take longer than all else."""


def alone(name: str, *, steps: int = 1, **options: object) -> Case:
    """On one GPU."""
    return Case(name, options, training={**ALONE, "global_batch": steps})


def of(run: Run, *kinds: str) -> list[Operation]:
    """Rank 0's operations of these kinds in the last iteration, in the order in which they started."""
    found = [o for o in last(run, *kinds) if o.stream.rank == 0]
    return sorted(found, key=lambda o: (o.started_at, o.index))


def kernel_seconds(run: Run) -> float:
    return sum(o.duration for o in of(run, "compute"))


def largest(known: Facts) -> int:
    return max(s.elements for s in known.workload.subgroups)


def rounding(known: Facts) -> float:
    return sum(pinned_bytes(2 * share) - 2 * share for share in known.workload.shares)


# Bytes a parameter in host memory, and buffers.
HOST_BYTES: dict[str, tuple[int, Callable[[Facts], float]]] = {
    "stronghold": (2 + 12 + 4, lambda known: 2 * 2 * largest(known)),
    "slideformer": (12, lambda known: 2 * largest(known)),
    "megatrain": (2 + 2 + 2 + 8, lambda known: 12 * 2 * largest(known)),
    "l2l": (12, lambda known: 0),
    "roundpipe": (2 + 2 + 12 + 4, lambda known: 2 * rounding(known)),
    "llmq": (2 + 12, lambda known: 0),
}


@pytest.mark.parametrize("name", HOST_BYTES)
def test_host_memory(name: str) -> None:
    per_parameter, buffers = HOST_BYTES[name]
    known = facts(Case(name))
    peak = Case(name).simulate().peaks[-1]
    assert peak.tier == "host"
    assert peak.bytes == pytest.approx(RANKS * (per_parameter * known.owned + buffers(known)))


@pytest.mark.parametrize("name", ["stronghold", "l2l"])
def test_gpu_memory_grows_by_a_layer_with_the_window(name: str) -> None:
    results = [Case(name, {"window": window}).simulate() for window in (1, 2, 3)]
    gathered = [result.peaks[0].occupants["gathered parameters"] for result in results]
    layer = 2 * results[0].run.workload.layer_elements
    assert [b - a for a, b in pairwise(gathered)] == pytest.approx([layer, layer])


# What kernels hide.


@pytest.mark.parametrize("name", ["stronghold", "slideformer"])
def test_updates_in_backward_hide_under_kernels_but_for_the_last_two(name: str) -> None:
    """What is left are layer 0 and the embedding: they are updated last, and the next forward needs them first."""
    hardware = {"gpu": SLOW_GPU, "host": {"adam_params_per_s": 1e9}}
    result = alone(name).simulate(free_but(**hardware))
    workload = result.run.workload
    exposed = (workload.vocab_elements + workload.layer_elements) / 1e9
    assert result.iteration_s == pytest.approx(kernel_seconds(result.run) + exposed, rel=1e-6)


@pytest.mark.parametrize("name", ["stronghold", "slideformer"])
def test_updates_that_take_longer_than_kernels_are_the_iteration(name: str) -> None:
    result = alone(name).simulate(free_but(host={"adam_params_per_s": 1e6}))
    assert result.iteration_s == pytest.approx(result.run.workload.parameters / 1e6, rel=1e-6)


def stronghold_seconds(window: int, bandwidth: float) -> tuple[float, Run]:
    link = {"h2d_bytes_per_s": bandwidth}
    result = alone("stronghold", window=window).simulate(free_but(gpu=SLOW_GPU, link=link))
    return result.iteration_s, result.run


def test_a_window_of_two_hides_copies_that_are_shorter_than_kernels() -> None:
    """A window of one leaves each copy exposed: it waits for the kernels whose place it takes."""
    _, run = stronghold_seconds(1, 1e9)
    layer = min(o.duration for o in of(run, "compute") if "forward" in o.name)
    rate = 2 * run.workload.layer_elements / layer * 2  # a copy takes half as long as a forward
    (one, run), (two, _) = (stronghold_seconds(window, rate) for window in (1, 2))
    copy, first = (next(o.duration for o in of(run, "h2d") if o.layer == layer) for layer in (0, -1))
    assert two - kernel_seconds(run) == pytest.approx(first + copy, rel=1e-6)
    assert one - kernel_seconds(run) >= first + (2 * MODEL["layers"] - 2) * copy


@pytest.mark.parametrize("adam", [1e9, 1e6])
def test_roundpipe_hides_its_update_under_the_next_iteration(adam: float) -> None:
    """The longer of both; without `is_async` their sum."""
    seconds = {}
    for is_async in (True, False):
        result = alone("roundpipe", is_async=is_async).simulate(
            free_but(gpu=SLOW_GPU, host={"adam_params_per_s": adam})
        )
        seconds[is_async] = result.iteration_s
    update, kernels = result.run.workload.parameters / adam, kernel_seconds(result.run)
    assert seconds[False] == pytest.approx(kernels + update, rel=1e-6)
    assert seconds[True] == pytest.approx(max(kernels, update), rel=1e-6)


# SlideFormer's rules.


def slideformer(**sections: dict[str, float]) -> Result:
    return alone("slideformer").simulate(free_but(**sections))


def test_slideformer_fetches_a_layer_once_its_own_update_has_ended() -> None:
    """Not that of all layers: with slow updates, the embedding comes at the end of the last, the head earlier."""
    run = slideformer(host={"adam_params_per_s": 1e6}).run
    fetched = {o.layer: o for o in of(run, "h2d") if o.phase == "forward"}
    updates = {o.subgroup: o for o in run.operations if o.kind == "cpu_adam" and o.iteration == run.last - 1}
    for layer, copy in fetched.items():
        assert copy.started_at >= updates[layer + 1].ended_at
    assert fetched[-1].started_at == pytest.approx(updates[0].ended_at)


def test_slideformer_copies_a_layers_gradients_after_the_update_of_the_layer_behind() -> None:
    run = slideformer(host={"adam_params_per_s": 1e6}).run
    copies = [o for o in of(run, "d2h") if o.name == "gradients"]
    updates = {o.subgroup: o for o in of(run, "cpu_adam")}
    assert [o.subgroup for o in copies] == sorted((o.subgroup for o in copies), reverse=True)
    for before, copy in pairwise(copies):
        assert copy.started_at == pytest.approx(updates[before.subgroup].ended_at)


def test_slideformer_casts_a_chunk_while_the_one_before_is_copied() -> None:
    """Casts and copies of equal time: a layer of n chunks takes n + 1 times as long as one, not 2 n."""
    rate, chunks = 1e9, 4
    with pytest.MonkeyPatch.context() as patch:
        elements = facts(alone("slideformer")).workload.layer_elements
        patch.setattr("offsim.schedulers.slideformer.CHUNK", -(-elements // chunks))
        run = slideformer(link={"h2d_bytes_per_s": 2 * rate}, host={"downcast_params_per_s": rate}).run
    copies = [o for o in of(run, "h2d") if o.layer == 1 and o.phase == "forward"]
    casts = [o for o in of(run, "conversion") if o.subgroup == 2 and o.phase == "forward"]
    assert len(copies) == chunks
    assert copies[-1].ended_at - casts[0].started_at == pytest.approx((elements + elements / chunks) / rate, rel=1e-3)


# MegaTrain: five units of compute in place of four, and an optimizer that overlaps nothing.


def test_megatrain_runs_every_layer_forward_three_times() -> None:
    run = alone("megatrain").simulate(free_but(gpu={"matrix_flops_per_s": 1e12})).run
    layers = [o for o in of(run, "compute") if o.layer >= 0]
    forward = next(o.duration for o in layers if o.name == "layer 0 forward")
    assert sum(o.name.endswith("again") for o in layers) == MODEL["layers"]
    units = sum(o.duration for o in layers) / forward / MODEL["layers"]
    assert units == pytest.approx(5, rel=0.02)  # attention's backward is more than twice its forward


def test_megatrains_optimizer_overlaps_nothing() -> None:
    result = alone("megatrain").simulate()
    run = result.run
    start = of(run, "scaling")[0].started_at
    during = [o for o in last(run) if o.ended_at > start and o.duration]
    assert {o.kind for o in during} == {"scaling", "cpu_adam", "host copy"}
    assert run.ended_at - start == pytest.approx(sum(o.duration for o in during))


def test_megatrains_host_waits_for_a_free_slab() -> None:
    """One thread adds gradients up: where it is slow, the iteration takes its additions and the refill."""
    run = alone("megatrain").simulate(free_but(host={"copy_bytes_per_s": 1e6})).run
    assert run.ended_at - run.started_at == pytest.approx((3 + 2) * run.workload.parameters / 1e6, rel=1e-6)


# L2L: ZeRO-Offload's paper counts 28 B a parameter for it, whatever the number of micro-batches.


@pytest.mark.parametrize("steps", [1, 4])
def test_l2l_moves_28_bytes_a_parameter(steps: int) -> None:
    """Less what stays: the embedding, the head and the last layer come once."""
    run = alone("l2l", steps=steps).simulate().run
    workload = run.workload
    once = 2 * workload.vocab_elements + workload.layer_elements
    total = sum(o.bytes for o in of(run, "h2d", "d2h"))
    norm = 8 * MODEL["hidden"]  # the last norm stays with the head and is not copied with it
    assert total == pytest.approx(28 * workload.parameters - 4 * once - norm)


def test_l2l_overlaps_nothing_with_one_layer_on_the_gpu() -> None:
    """Each layer's copy waits for the kernels before it."""
    link = {"h2d_bytes_per_s": 1e9}
    result = alone("l2l").simulate(free_but(gpu={"matrix_flops_per_s": 1e11}, link=link))
    run = result.run
    forward = [o for o in of(run, "compute", "h2d") if o.phase == "forward"]
    layers = [o for o in forward if 0 <= o.layer < MODEL["layers"]]
    assert len(layers) == 2 * MODEL["layers"]
    for before, after in pairwise(layers):
        assert before.ended_at <= after.started_at + 1e-12


# LLMQ: p, m and v cross the link both ways at once.


@pytest.mark.parametrize(("state", "nbytes"), [("fp32", 12), ("bf16", 6)])
def test_llmqs_update_takes_the_longer_direction(state: str, nbytes: int) -> None:
    """Down, with 16-bit parameters; copies through buffers also wait for the first one and leave the last one."""
    rate = 1e9
    link = {"h2d_bytes_per_s": rate, "d2h_bytes_per_s": rate}
    seconds = {}
    for access in ("zero_copy", "double_buffer"):
        result = alone("llmq", access=access, state=state).simulate(free_but(link=link))
        seconds[access] = result.durations["update"]
    workload = result.run.workload
    down = (nbytes + 2) * workload.parameters / rate
    layer = nbytes * workload.layer_elements / rate
    assert seconds["zero_copy"] == pytest.approx(down, rel=1e-2)
    assert down < seconds["double_buffer"] <= down + 3 * layer


def test_llmqs_gradients_stay_on_the_gpu() -> None:
    result = alone("llmq", steps=3).simulate()
    assert not [o for o in result.run.operations if o.kind == "d2h" and o.phase != "update"]
    assert result.peaks[0].occupants["gradients (bf16)"] == 2 * result.run.workload.parameters


# Megatron-LM's --optimizer-cpu-offload.


def test_megatron_copies_at_the_update_alone() -> None:
    run = Case("megatron_offload", training={"zero_stage": 1}).simulate().run
    assert {o.phase for o in of(run, "h2d", "d2h")} == {"update"}
    down, up = of(run, "d2h"), of(run, "h2d")
    assert down[-1].enqueued_at <= up[0].started_at  # all gradients are queued at once


def test_megatrons_cpu_update_takes_pytorchs_fused_rate() -> None:
    case = Case("megatron_offload", training={**ALONE, "zero_stage": 1})
    result = case.simulate(free_but(host={"torch_adam_params_per_s": 1e9}))
    assert result.iteration_s == pytest.approx(result.run.workload.parameters / 1.8e9, rel=1e-6)


def test_megatrons_gpu_holds_fp32_gradients_of_the_whole_model() -> None:
    result = Case("megatron_offload", training={"zero_stage": 1}).simulate()
    held = sum(
        nbytes for name, nbytes in result.peaks[0].occupants.items() if name.startswith("gradients of the whole")
    )
    assert held == 4 * result.run.workload.parameters


def test_a_fused_loss_holds_a_part_of_the_logits() -> None:
    whole, parts = (
        max(
            nbytes for _, name, nbytes, _ in case.simulate().run.ranks[0].gpu_memory.series if name == "logits and loss"
        )
        for case in (alone("slideformer"), alone("slideformer").on(loss_chunks=4))
    )
    assert parts == pytest.approx(whole / 4)
