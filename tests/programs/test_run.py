"""Iterations until they repeat: what is measured, and that it is counted to the right iteration."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim.platform.platform import GPU
from offsim.programs.run import Run
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.testing import moved

# Bytes of the measured iteration


def deep_optimizer_states_bytes(run: Run, stride: int) -> dict[str, float]:
    """Closed form: 2 B each way to accumulate in each micro-step; 12 B each way, or 4 B down and 2 B up, to update."""
    subgroups = run.workload.subgroups
    owned = run.workload.partition
    on_gpu = sum(s.elements for s in subgroups if (s.index + 1) % stride == 0)
    accumulated = 2 * owned * run.workload.training.micro_steps
    return {
        "h2d": accumulated + 12 * on_gpu + 2 * (owned - on_gpu),
        "d2h": accumulated + 12 * on_gpu + 4 * (owned - on_gpu),
    }


@pytest.mark.parametrize(("name", "h2d"), [("dos_20b_4xh100", 33.841e9), ("dos_7b_4xa100", None)])
def test_late_uploads_are_counted_to_the_iteration_that_began_them(name: str, h2d: float | None) -> None:
    """Its background thread uploads into the next forward; those bytes belong to the update that spawned it."""
    result = simulate(name)
    stride = result.scenario.scheduler.options["update_stride"]
    expected = deep_optimizer_states_bytes(result.run, stride)
    (bytes_moved,) = moved(result.run)
    assert bytes_moved == pytest.approx(expected, rel=1e-12)
    if h2d is not None:
        assert bytes_moved["h2d"] == pytest.approx(h2d, rel=1e-4)
    late = [o for o in result.run.operations if o.iteration == result.run.last and o.ended_at > result.run.ended_at]
    assert all(operation.name.startswith(("upload", "flush", "fp32 to bf16")) for operation in late)
    rows = result.timeline.query("iteration == 1")
    assert rows.loc[rows["activity"] == "h2d", "bytes"].sum() == pytest.approx(expected["h2d"])


UNEQUAL = {"host": {"numa_domains": 2, "memory_bytes_per_s": 2e10}}


def unequal(scheduler: str | dict[str, Any], **training: Any) -> Result:
    """Three ranks on two domains: two share the bandwidth that the third has alone."""
    values = {"data_parallel": 3, "global_batch": 6, **training}
    with small_buckets():
        return simulate(scenario(scheduler, training=values), profile=profile(**UNEQUAL))


@pytest.mark.parametrize("stride", [2, 3])
def test_ranks_that_end_an_update_at_different_times_count_the_same_bytes(stride: int) -> None:
    run = unequal({"name": "deep_optimizer_states", "update_stride": stride}).run
    assert len(run.ranks) == 3
    expected = deep_optimizer_states_bytes(run, stride)
    for bytes_moved in moved(run):
        assert bytes_moved == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_all_ranks_have_the_operations_of_the_measured_iteration(scheduler: dict[str, Any]) -> None:
    run = unequal(scheduler).run
    per_rank = [
        sorted((o.kind, o.name, o.phase) for o in run.operations if o.iteration == run.last and o.stream.rank == rank)
        for rank in range(3)
    ]
    assert per_rank[0] == per_rank[1] == per_rank[2]


# From begin to begin


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_an_iteration_begins_when_the_last_rank_begins_it(scheduler: dict[str, Any]) -> None:
    run = unequal(scheduler).run
    for first, time in ((run.first, run.started_at), (run.last + 1, run.ended_at)):
        begins = [
            max((p.end for p in run.phases if (p.rank, p.iteration) == (rank.number, first - 1)), default=0.0)
            for rank in run.ranks
        ]
        if first > 1:  # all have begun at zero, or after an update before
            assert max(begins) == time
    for rank in run.ranks:
        measured = [p for p in run.phases if p.rank == rank.number and run.first <= p.iteration <= run.last]
        assert measured[0].start <= run.started_at
        assert measured[-1].end <= run.ended_at
        assert all(earlier.end == later.start for earlier, later in pairwise(measured))


def test_ranks_that_wait_for_nobody_do_not_run_ahead() -> None:
    """Two tensor-parallel ranks meet in no collective here."""
    training = {"data_parallel": 1, "tensor_parallel": 2, "global_batch": 2}
    with small_buckets():
        one, every = (
            simulate(scenario("no_offload", training=training), profile=profile(), all_ranks=all_ranks)
            for all_ranks in (False, True)
        )
    assert every.iteration_s == pytest.approx(one.iteration_s)
    assert every.durations == pytest.approx(one.durations)
    assert max(operation.iteration for operation in every.run.operations) == every.run.last


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_a_run_goes_on_until_it_repeats(scheduler: dict[str, Any]) -> None:
    run = unequal(scheduler).run
    assert run.settled
    assert run.iterations == 1
    assert run.last <= 3


def test_late_work_takes_an_iteration_more() -> None:
    """Without the update before the first iteration, the first forward would have the link for itself."""
    run = unequal({"name": "deep_optimizer_states", "update_stride": 3}).run
    assert run.started_at > 0
    before = [o for o in run.operations if o.iteration < run.first]
    assert {o.iteration for o in before} <= {0, 1, 2}


# Tiers of activations


def with_activations(
    tier: str, scheduler: str = "no_offload", recompute: int | None = None, d2h: float = 2e10, **changes: Any
) -> Result:
    source = scenario(scheduler, training={"data_parallel": 1, "global_batch": 2, **changes})
    placement: dict[str, Any] = {"tier": tier}
    if recompute is not None:
        placement["recompute"] = recompute
    with small_buckets(reuse=10**9):
        return simulate(
            {**source, "placement": {"activations": placement}}, profile=profile(link={"d2h_bytes_per_s": d2h})
        )


@pytest.mark.parametrize("checkpointing", [True, False])
def test_activations_leave_and_come_back_but_for_the_last_layer(checkpointing: bool) -> None:
    run = with_activations("host", activation_checkpointing=checkpointing).run
    workload = run.workload
    kept = workload.hidden_bytes if checkpointing else workload.layer_activation_bytes
    expected = (workload.model.layers - 1) * kept * workload.training.micro_steps
    assert moved(run) == [pytest.approx({"d2h": expected, "h2d": expected})]


def test_activations_elsewhere_free_the_gpu() -> None:
    batch = {"micro_batch": 8, "global_batch": 16, "activation_checkpointing": False}
    there, here = (with_activations(tier, **batch) for tier in ("host", GPU))
    workload = here.run.workload
    gone = here.peaks[0].bytes - there.peaks[0].bytes
    layers = workload.model.layers
    assert 0.9 * (layers - 2) * workload.layer_activation_bytes <= gone <= layers * workload.layer_activation_bytes
    host = next(peak for peak in there.peaks if peak.tier == "host")
    held = max(nbytes for name, nbytes in host.occupants.items() if "activations" in name)
    # All layers but the last leave, and the first to come back goes while others still wait.
    assert (layers - 2) * workload.layer_activation_bytes <= held <= (layers - 1) * workload.layer_activation_bytes
    assert there.iteration_s >= here.iteration_s * (1 - 1e-9)


@pytest.mark.parametrize("d2h", [2e10, 1e9])
def test_a_backward_waits_for_its_activations(d2h: float) -> None:
    """Even where those of the last layers are still on their way out when backward asks for them."""
    run = with_activations("host", activation_checkpointing=False, d2h=d2h).run
    measured = [o for o in run.operations if run.first <= o.iteration <= run.last]
    for layer in range(run.workload.model.layers - 1):
        backward = [o for o in measured if o.name == f"layer {layer} backward"]
        back = [o for o in measured if o.kind == "h2d" and o.layer == layer]
        out = [o for o in measured if o.kind == "d2h" and o.layer == layer]
        forward = [o for o in measured if o.name == f"layer {layer} forward"]
        assert len(backward) == len(back) == len(out) == len(forward) == 2
        for made, left, came, used in zip(forward, out, back, backward, strict=True):
            assert made.ended_at <= left.started_at
            assert left.ended_at <= came.started_at
            assert came.ended_at <= used.started_at


@pytest.mark.parametrize("layers", [0, 1, 3, 4])
def test_recomputed_layers_run_forward_again(layers: int) -> None:
    result = with_activations(GPU, recompute=layers)
    none = with_activations(GPU, recompute=0)
    run, workload = result.run, result.run.workload
    forward = next(o.duration for o in run.operations if o.name == "layer 0 forward")
    backward = {
        layer: next(o.duration for o in run.operations if o.name == f"layer {layer} backward")
        for layer in range(workload.model.layers)
    }
    plain = next(o.duration for o in none.run.operations if o.name == "layer 0 backward")
    assert backward == pytest.approx({layer: plain + (forward if layer < layers else 0.0) for layer in backward})
    saved = none.peaks[0].bytes - result.peaks[0].bytes
    assert saved <= layers * (workload.layer_activation_bytes - workload.hidden_bytes)
    assert (saved > 0) == (layers > 0)


# ZeRO stages 0 to 3


STAGES = [0, 1, 2, 3]


def staged(stage: int, **training: Any) -> Result:
    with small_buckets():
        values = {"data_parallel": 4, "global_batch": 8, "zero_stage": stage, **training}
        return simulate(scenario("no_offload", training=values), profile=profile())


@pytest.mark.parametrize("stage", STAGES)
def test_collectives_of_each_stage(stage: int) -> None:
    """A ring sends (n - 1) / n of a tensor for a gather or a scatter, twice that for an all-reduce. M: model bytes."""
    run = staged(stage).run
    workload = run.workload
    ring, steps = 3 / 4, workload.training.micro_steps
    model = 2 * workload.parameters
    layers = workload.model.layers
    live = min(max(-(-100_000 // workload.layer_elements), 2), layers)  # 100,000 as in small_buckets
    gathered = steps * (2 * layers - live) * 2 * workload.layer_elements + 2 * 2 * workload.vocab_elements
    norms = 2 * 8 * len(workload.subgroups)
    expected = {
        0: {"all_reduce": 2 * model + norms},
        1: {"reduce_scatter": model, "all_gather": model, "all_reduce": norms},
        2: {"reduce_scatter": steps * model, "all_gather": model, "all_reduce": norms},
        3: {"reduce_scatter": steps * model, "all_gather": gathered, "all_reduce": norms},
    }[stage]
    kinds = ("all_gather", "reduce_scatter", "all_reduce")
    found = {kind: sum(o.bytes for o in run.operations if o.kind == kind and o.iteration == run.last) for kind in kinds}
    assert {kind: nbytes for kind, nbytes in found.items() if nbytes} == pytest.approx(
        {kind: ring * nbytes for kind, nbytes in expected.items()}
    )


def test_each_stage_splits_more() -> None:
    """Bytes a parameter on a GPU of four ranks: 2 + 2 + 16, then a quarter of the 16, of the gradients, of all."""
    occupants = [staged(stage).peaks[0].occupants for stage in STAGES]
    workload = staged(3).run.workload
    model = workload.parameters
    assert [held["parameters (bf16)"] for held in occupants] == pytest.approx(
        [2 * model, 2 * model, 2 * model, 2 * workload.partition], rel=1e-3
    )
    states = [held["optimizer state p, m, v (fp32)"] + held["gradients (fp32)"] for held in occupants]
    assert states == pytest.approx([16 * model, 4 * model, 4 * model, 4 * model], rel=2e-3)
    whole = [held.get("gradients of the whole model (bf16)", 0.0) for held in occupants]
    assert whole == [2 * model, 2 * model, 0.0, 0.0]
    peaks = [staged(stage).gpu_peak_bytes for stage in STAGES]
    # All of this model's layers are gathered at once: stage 3 holds what stage 2 does, and partitions besides.
    assert peaks[0] > peaks[1] > peaks[2]
    assert peaks[3] < peaks[1]


def test_one_rank_has_nothing_to_split() -> None:
    times = [staged(stage, data_parallel=1, global_batch=2, subgroup_size=10**9) for stage in STAGES]
    assert [result.durations["forward"] for result in times] == pytest.approx([times[0].durations["forward"]] * 4)
    assert {o.kind for result in times for o in result.run.operations} <= {
        "compute",
        "d2d",
        "gpu_adam",
        "launch",
        "wait",
    }
