"""ZO2 and DistZO2 against their papers and against sums by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from conformance import FREE, Case, free_but, last, moved

from offsim.engine import Operation
from offsim.inputs.errors import InputError
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario
from offsim.schedulers.registry import alternative

LAYERS = 24
ALONE = {"data_parallel": 1, "zero_stage": 0}
MODEL = {"layers": LAYERS, "flash_attention": True}


def run(link: float, hbm: float, **options: bool) -> Result:
    """One rank on which only copies and element-wise kernels take time, whose rates these are."""
    rates = dict.fromkeys(("h2d_bytes_per_s", "d2h_bytes_per_s"), link)
    hardware = free_but(gpu={"hbm_bytes_per_s": hbm}, link={**rates, "duplex_bytes_per_s": FREE})
    return Case("zo2", options, training=ALONE, model=MODEL).simulate(hardware)


def times(result: Result) -> tuple[float, float, float, float]:
    """Seconds of both passes of a block, of a copy of it, and of both passes of embedding and of head."""
    groups = [0.0] * (LAYERS + 2)
    for o in last(result.run, "compute", "d2d"):
        end = LAYERS + 1 if o.name == "head and loss" else 0
        groups[max(o.subgroup, o.layer + 1) or end] += o.duration
    copy = moved(result.run)[0]["h2d"] / LAYERS / result.run.profile.link.h2d_bytes_per_s
    return groups[1], copy, groups[0], groups[-1]


@pytest.mark.parametrize("link", [1e9, 8e9, 1e12])
@pytest.mark.parametrize("amp", [False, True])
def test_a_block_takes_the_longest_of_compute_and_copies(link: float, amp: bool) -> None:
    """The first block comes beside the embedding; one is computed and leaves with nothing beside it, then the head."""
    result = run(link, 1e11, amp=amp)
    compute, copy, embedding, head = times(result)
    expected = max(embedding, copy) + (LAYERS - 1) * max(compute, copy) + compute + copy + head
    assert result.iteration_s == pytest.approx(expected, rel=1e-6)


def test_both_bounds_occur() -> None:
    """Of the rates above, copies are slower at the first, kernels at the last."""
    for link, copies in ((1e9, True), (1e12, False)):
        compute, copy, *_ = times(run(link, 1e11))
        assert (copy > compute) == copies


@pytest.mark.parametrize("link", [1e10, 1e12])
def test_without_overlap_a_block_takes_the_sum(link: float) -> None:
    result = run(link, 1e11, overlap=False)
    compute, copy, embedding, head = times(result)
    expected = LAYERS * (compute + 2 * copy) + embedding + head
    assert result.iteration_s == pytest.approx(expected, rel=1e-6)


def test_weights_are_read_and_written_four_times() -> None:
    result = run(FREE, 1e11)
    shifts = [o for o in result.run.operations if o.kind == "d2d" and o.iteration == result.run.first]
    assert sum(o.bytes for o in shifts) == 4 * 2 * 4 * result.run.workload.parameters


def test_the_host_waits_for_uploads_and_kernels() -> None:
    """Block i is computed once it is there; it leaves once it is computed, while the next one is and another comes."""
    result = run(3e10, 1e11, bucket=True)

    def of(name: str) -> list[Operation]:
        return sorted((o for o in last(result.run) if o.name == name), key=lambda o: o.layer)

    uploads, offloads = of("upload block"), of("offload block")
    first, latest = ([o for o in of(name) if 1 <= o.subgroup <= LAYERS] for name in ("apply the last gradient",
                                                                                  "restore by +z"))  # fmt: skip
    for layer in range(LAYERS):
        assert uploads[layer].ended_at <= first[layer].enqueued_at
        assert latest[layer].ended_at <= offloads[layer].enqueued_at
    for before, after in pairwise(range(LAYERS)):
        assert uploads[after].started_at < latest[before].ended_at  # beside the kernels of the one before
    for layer in range(3, LAYERS):
        assert uploads[layer].started_at >= offloads[layer - 3].ended_at  # into its slot


def test_single_tensors_cost_a_latency_each() -> None:
    tensors = 7
    hardware = free_but(link={"copy_latency_s": 1e-3})
    flat, single = (
        Case("zo2", {"bucket": bucket, "overlap": False}, training=ALONE, model=MODEL).simulate(hardware).iteration_s
        for bucket in (True, False)
    )
    assert flat == pytest.approx(2 * LAYERS * 1e-3, rel=1e-6)
    assert single == pytest.approx(tensors * flat, rel=1e-6)


# GPU memory that the authors report, fp16, in GB. Assumed: batch 1 of 2048 tokens, unfused attention, tied head.
@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "reported"), [(24, 2048, 32, 3.75), (32, 4096, 32, 4.99), (48, 7168, 56, 8.86)]
)
def test_gpu_memory_is_what_zo2_reports_of_opt(layers: int, hidden: int, heads: int, reported: float) -> None:
    model = {"layers": layers, "hidden": hidden, "ffn_hidden": 4 * hidden, "heads": heads, "kv_heads": heads}
    result = simulate("zo2_30b_1xh100", [f"model.{name}={value}" for name, value in model.items()])
    assert result.gpu_peak_bytes / 1e9 == pytest.approx(reported, rel=0.05)
    tokens, vocabulary = 2048, 50272
    block = 12 * hidden**2 + 2 * hidden
    weights = 2 * (3 * block + (vocabulary + 1) * hidden)
    activations = tokens * (2 * 16 * hidden + 8 * hidden + 8 * heads * tokens + 2 * 10 * vocabulary)
    assert result.gpu_peak_bytes == pytest.approx(weights + activations, rel=1e-6)
    assert result.host_peak_bytes == pytest.approx(2 * layers * block, rel=1e-6)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_of_distzo2_upload_a_block_together(ranks: int) -> None:
    """Where links are all that takes time, N of them bring a block N times as fast."""
    rates = dict.fromkeys(("h2d_bytes_per_s", "d2h_bytes_per_s", "duplex_bytes_per_s"), 1e9)
    alone = Case("zo2", training=ALONE).simulate(free_but(link=rates))
    together = Case("distzo2", training={"data_parallel": ranks}).simulate(free_but(link=rates))
    assert together.iteration_s == pytest.approx(alone.iteration_s / ranks, rel=1e-6)
    assert together.host_peak_bytes == pytest.approx(alone.host_peak_bytes)


def test_model_flops_are_those_of_two_forward_passes() -> None:
    result = simulate("zo2_30b_1xh100")
    workload = result.run.workload
    assert result.tflops_per_gpu * result.iteration_s * 1e12 == pytest.approx(workload.model_flops() * 2 / 3)
    assert result.durations == {"dual forward": pytest.approx(result.iteration_s)}


def test_zeroth_order_steps_are_no_alternative_to_training() -> None:
    training, zeroth_order = load_scenario("zero3_3b_rtx4090"), load_scenario("zo2_30b_1xh100")
    assert alternative(zeroth_order, "distzo2").scheduler.name == "distzo2"
    for scenario, name in ((training, "zo2"), (zeroth_order, "zero3_offload")):
        with pytest.raises(InputError, match="it is a schedule of"):
            alternative(scenario, name)
