"""ZenFlow: memory, bytes, staleness, and what an interval hides."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import RANKS, Case, first_held, free_but, reads_of_parameters

from offsim.platform.platform import GPU

SLOW_GPU = {"matrix_flops_per_s": 1e11}
CPU = {"adam_params_per_s": 1e9}


def zenflow(stage: int = 2, **options: Any) -> Case:
    return Case("zenflow", options, training={"zero_stage": stage})


@pytest.mark.parametrize(
    ("stage", "overlap", "expected"), [(1, True, 36), (2, True, 36), (3, True, 34), (2, False, 20), (3, False, 18)]
)
def test_host_bytes_of_an_owned_parameter(stage: int, overlap: bool, expected: float) -> None:
    """p and stale p 8, two gradient buffers 8, two m and v 16, accumulation 2; an upload buffer 2 in stages 1 and 2."""
    result = zenflow(stage, overlap_step=overlap).simulate()
    tier = next(tracked for tracked in result.run.platform.tiers if tracked.name == "host")
    held = sum(first_held(tier.memory).values()) * tier.scale / RANKS
    assert held / result.run.workload.partition == pytest.approx(expected)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("topk", [0.05, 0.2])
def test_the_gpu_holds_eight_bytes_of_a_selected_parameter(stage: int, topk: float) -> None:
    """m, v, gradient and its clone in 16 bits: of the whole model, or in stage 3 of the rank's partition."""
    result = zenflow(stage, topk_ratio=topk).simulate()
    gpu = next(tier.memory for tier in result.run.platform.tiers if tier.kind == GPU)
    held = next(nbytes for name, nbytes in first_held(gpu).items() if "selected" in name)
    elements = result.run.workload.partition if stage == 3 else result.run.workload.parameters
    assert held == pytest.approx(8 * topk * elements)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("interval", [2, 4])
def test_bytes_of_an_interval(stage: int, interval: int) -> None:
    """D2H 2 S + 4 and H2D 2 (S - 1) + 2 a parameter: with S = 4, 5 B a step."""
    run = (result := zenflow(stage, update_interval=interval).simulate()).run
    assert run.iterations == interval
    for kind, expected in (("d2h", 2 * interval + 4), ("h2d", 2 * interval)):
        moved = sum(o.bytes for o in run.operations if o.kind == kind and run.first <= o.iteration <= run.last)
        assert moved == pytest.approx(expected * result.run.workload.partition)


@pytest.mark.parametrize(("overlap", "intervals"), [(False, 1), (True, 2)])
def test_gradients_act_at_the_end_of_the_interval_or_of_the_next(overlap: bool, intervals: int) -> None:
    with reads_of_parameters() as reads:
        zenflow(overlap_step=overlap, update_interval=3).simulate()
    assert {behind for _, _, behind, _ in reads} == set(range(3 * intervals))


@pytest.mark.parametrize("stage", [2, 3])
def test_an_overlapped_update_hides_adam_where_the_interval_is_longer(stage: int) -> None:
    compute = zenflow(stage).simulate(free_but(gpu=SLOW_GPU)).iteration_s
    plain = zenflow(stage).simulate(free_but(gpu=SLOW_GPU, host=CPU))
    overlapped = zenflow(stage, overlap_step=True).simulate(free_but(gpu=SLOW_GPU, host=CPU))
    assert plain.iteration_s == pytest.approx(compute + plain.run.workload.partition / 1e9 / 4, rel=1e-6)
    assert overlapped.iteration_s == pytest.approx(compute, rel=1e-6)


@pytest.mark.parametrize("reserved", [0.25, 0.5])
def test_an_overlapped_update_takes_the_cores_that_are_not_reserved(reserved: float) -> None:
    case = zenflow(overlap_step=True, pt_reserved_cores_perc=reserved)
    result = case.simulate(free_but(host=CPU))
    assert 4 * result.iteration_s == pytest.approx(result.run.workload.partition / ((1 - reserved) * 1e9), rel=1e-6)
