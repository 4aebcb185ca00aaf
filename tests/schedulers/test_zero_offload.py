"""ZeRO-Offload, as the paper (arXiv 2101.06840) and as DeepSpeed releases it in stages 1 and 2."""

from __future__ import annotations

import pytest
from conformance import RANKS, Case, first_held, free_but, moved, node, reads_of_parameters

from offsim import simulate
from offsim.platform.platform import GPU
from offsim.results.result import Result

PAPER = Case("zero_offload", training={"zero_stage": 2})
DELAYED = Case("zero_offload", {"delayed_update": True}, training={"zero_stage": 2})
RELEASED = Case("zero2_offload", training={"zero_stage": 2})
STAGE_1 = Case("zero1_offload", training={"zero_stage": 1})


def bytes_each_owned(result: Result) -> float:
    """Host memory that states hold throughout, a parameter that a rank owns."""
    tier = next(tracked for tracked in result.run.platform.tiers if tracked.name == "host")
    return sum(first_held(tier.memory).values()) * tier.scale / RANKS / result.run.workload.partition


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("zero_offload", {"tile_elements": 10**9}, training={"zero_stage": 2}), 14 + 2),  # one tile: all of it
        (DELAYED, 14 + 2 + 2),  # a second gradient buffer, and parameters to upload at the end of backward
        (RELEASED, 18),
        (RELEASED.on(global_batch=3 * RANKS), 20),
        (STAGE_1, 18),
    ],
    ids=str,
)
def test_host_bytes_of_an_owned_parameter(case: Case, expected: float) -> None:
    assert bytes_each_owned(case.simulate()) == pytest.approx(expected)


def test_two_tiles_are_all_that_waits_for_its_upload() -> None:
    result = Case("zero_offload", {"tile_elements": 1000}, training={"zero_stage": 2}).simulate()
    assert bytes_each_owned(result) == pytest.approx(14 + 2 * 2 * 1000 / result.run.workload.partition)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_gpu_holds_two_bytes_of_every_parameter_and_no_optimizer(ranks: int) -> None:
    run = PAPER.on(data_parallel=ranks, global_batch=ranks).simulate().run
    held = first_held(next(tier.memory for tier in run.platform.tiers if tier.kind == GPU))
    assert held["parameters (bf16)"] == 2 * run.workload.parameters
    assert not [name for name in held if "optimizer" in name]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(("case", "expected"), [(PAPER, 4), (DELAYED, 4), (RELEASED, 6), (STAGE_1, 6)], ids=str)
def test_bytes_across_the_link_shrink_with_the_ranks(case: Case, expected: float, ranks: int) -> None:
    """4 P / N in the paper (section 4), 6 P / N as released: gradients leave in fp32."""
    run = case.on(data_parallel=ranks, global_batch=ranks).simulate().run
    assert sum(moved(run)[0].values()) == pytest.approx(expected * run.workload.parameters / ranks, rel=1e-6)


@pytest.mark.parametrize(("adam", "link"), [(1e9, 1e10), (1e10, 1e9)], ids=["Adam longer", "uploads longer"])
def test_the_shorter_of_adam_and_uploads_hides_but_for_one_tile(adam: float, link: float) -> None:
    """The upload of the last tile, or Adam of the first one."""
    tile = 250_000
    case = Case("zero_offload", {"tile_elements": tile}, training={"zero_stage": 2})
    result = case.simulate(free_but(host={"adam_params_per_s": adam}, link={"h2d_bytes_per_s": link}))
    owned = result.run.workload.partition
    expected = owned / adam + 2 * (owned % tile) / link if adam < link else tile / adam + 2 * owned / link
    assert result.iteration_s == pytest.approx(expected, rel=1e-6)


def test_a_delayed_update_hides_adam_where_compute_is_longer() -> None:
    slow_gpu, cpu = {"matrix_flops_per_s": 1e11}, {"adam_params_per_s": 1e9}
    without_adam = DELAYED.simulate(free_but(gpu=slow_gpu)).iteration_s
    adam = DELAYED.simulate().run.workload.partition / 1e9
    assert without_adam > adam
    assert DELAYED.simulate(free_but(gpu=slow_gpu, host=cpu)).iteration_s == pytest.approx(without_adam, rel=1e-6)
    both = PAPER.simulate(free_but(gpu=slow_gpu, host=cpu)).iteration_s
    assert both == pytest.approx(without_adam + adam, rel=1e-6)


def test_a_delayed_update_takes_as_long_as_adam_where_that_is_longer() -> None:
    hardware = free_but(gpu={"matrix_flops_per_s": 1e13}, host={"adam_params_per_s": 1e8})
    result = DELAYED.simulate(hardware)
    assert result.iteration_s == pytest.approx(result.run.workload.partition / 1e8, rel=1e-6)


@pytest.mark.parametrize(("case", "behind"), [(PAPER, {0}), (DELAYED, {0, 1})], ids=str)
def test_only_delayed_updates_leave_old_parameters(case: Case, behind: set[int]) -> None:
    with reads_of_parameters() as reads:
        case.simulate(node())
    assert {updates for _, _, updates, _ in reads} == behind


# Table 4 of the paper: CPU Adam on the two Xeon 8168 of a DGX-2, in seconds.
@pytest.mark.parametrize(("layers", "seconds"), [(10, 0.51), (20, 1.03), (40, 2.41), (50, 2.57)])
def test_cpu_adam_on_a_dgx_2(layers: int, seconds: float) -> None:
    sizes = [f"model.layers={layers}", "model.vocab=128", "training.micro_batch=1", "training.global_batch=1"]
    result = simulate("zero_offload_10b_v100", sizes)
    adam = sum(o.ended_at - o.started_at for o in result.run.operations if o.kind == "cpu_adam" and o.iteration == 1)
    assert adam == pytest.approx(seconds, rel=0.15)


@pytest.mark.parametrize("layers", [20, 50])
def test_a_delayed_update_gains_what_the_paper_measured(layers: int) -> None:
    """1.12 to 1.59 times as fast at micro-batch 8 (section 6.2.4)."""
    sizes = [f"model.layers={layers}", "training.micro_batch=8", "training.global_batch=8"]
    on_time, late = (
        simulate("zero_offload_10b_v100", [*sizes, f"scheduler.delayed_update={delayed}"]).iteration_s
        for delayed in ("false", "true")
    )
    assert 1.12 <= on_time / late <= 1.59
