"""Against what papers derive on paper."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from conformance import FREE, Case, free_but, last, moved

from offsim.engine import Code
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch, TrainingSchedule
from offsim.programs.transformer import BF16, Bucket
from offsim.results.result import Result
from offsim.schedulers.registry import BUILT_IN

# ZeRO-Offload (arXiv 2101.06840, section 4): 4 B a parameter of a rank's share cross PCIe, 2 of gradients down and 2 of
# parameters up.


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_zero_offload_moves_four_bytes_of_each_parameter(ranks: int) -> None:
    """DeepSpeed moves as much again, to pass gradients through its accumulation buffer: 2 B down and 2 B back up."""
    run = Case("zero3_offload", training={"data_parallel": ranks}).simulate().run
    (total,) = (sum(rank.values()) for rank in moved(run)[:1])
    buffered = ("gradients to accumulation buffer", "gradients back")
    through_buffer = sum(o.bytes for o in last(run) if o.name in buffered)
    share = run.workload.parameters / ranks
    assert total - through_buffer == pytest.approx(4 * share, rel=1e-6)
    assert total == pytest.approx(8 * share, rel=1e-6)


# ZeRO-Infinity (arXiv 2104.07857, section 4): with arithmetic intensity `ait`, the FLOPs for each byte that is moved,
# a bandwidth and a peak, and nothing overlapped, efficiency = ait x bandwidth / (ait x bandwidth + peak).


class InTurn(TrainingSchedule):
    """Copies a layer's parameters from host memory and computes it, one after the other; has no update."""

    name = "in_turn"
    parameter_kinds = (GPU, "memory")
    optimizer_kinds = (GPU,)
    optimizer_home = GPU

    def fetch(self, rank: Rank, wanted: Fetch) -> Code:
        yield rank.wait(rank.compute_stream)
        nbytes = BF16 * wanted.elements
        copy = rank.move(nbytes, HOST, GPU, "fetch", layer=wanted.layer, allocates=wanted.memory)
        yield copy
        return copy

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        yield from ()

    def update(self, rank: Rank) -> Code:
        yield from ()
        for subgroup in self.subgroups:
            self.written(rank, subgroup, rank.gpu_adam(subgroup.elements, subgroup.index))


PEAK = 1e13
SIZES = {"layers": 12, "flash_attention": True}


def fetching(scheduler: str, bandwidth: float, batch: int) -> Result:
    """One rank whose parameters live in host memory; only kernels' FLOPs and the link take time."""
    training = {"data_parallel": 1, "micro_batch": batch, "global_batch": batch}
    case = Case(scheduler, placement={"parameters": HOST}, training=training, model=SIZES)
    rates = dict.fromkeys(("h2d_bytes_per_s", "duplex_bytes_per_s"), bandwidth)
    return case.simulate(free_but(gpu={"matrix_flops_per_s": PEAK, "hbm_bytes_per_s": FREE}, link=rates))


@pytest.mark.parametrize("bandwidth", [1e9, 1e10, 1e11])
@pytest.mark.parametrize("batch", [1, 4])
def test_efficiency_is_that_of_zero_infinity_where_nothing_overlaps(bandwidth: float, batch: int) -> None:
    with patch.dict(BUILT_IN, {"in_turn": InTurn}):
        result = fetching("in_turn", bandwidth, batch)
    seconds = sum(o.duration for o in last(result.run, "compute"))
    flops, nbytes = PEAK * seconds, moved(result.run)[0]["h2d"]
    # Per token and parameter 2 FLOPs in forward, 4 in backward, 2 to recompute; attention and the head come on top.
    workload = result.run.workload
    matrices = workload.model.layers * (workload.layer_elements - 2 * workload.model.hidden)
    assert 8 * workload.tokens * matrices < flops < 16 * workload.tokens * matrices
    ait = flops / nbytes
    assert seconds / result.iteration_s == pytest.approx(ait * bandwidth / (ait * bandwidth + PEAK), rel=1e-6)


def test_intensity_grows_with_the_batch() -> None:
    """Parameters move once a pass whatever the batch: the FLOPs of a byte, and so the efficiency, grow with it."""
    with patch.dict(BUILT_IN, {"in_turn": InTurn}):
        runs = [fetching("in_turn", 1e10, batch) for batch in (1, 2, 4, 8)]
    assert len({moved(result.run)[0]["h2d"] for result in runs}) == 1
    efficiencies = [sum(o.duration for o in last(result.run, "compute")) / result.iteration_s for result in runs]
    lost = [1 / efficiency - 1 for efficiency in efficiencies]
    assert lost == pytest.approx([lost[0] / batch for batch in (1, 2, 4, 8)], rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_fetches_that_overlap_take_the_longer_of_both(batch: int) -> None:
    """As released, copies run ahead: where they are slower than kernels, forward is all copies and then the head."""
    result = fetching("zero3_offload", 1e8, batch)
    run = result.run
    workload = run.workload
    forward = [o for o in last(run) if o.phase == "forward"]
    head = next(o.duration for o in forward if o.name == "head and loss")
    elements = workload.model.layers * workload.layer_elements + 2 * workload.vocab_elements
    assert result.durations["forward"] == pytest.approx(BF16 * elements / 1e8 + head, rel=1e-6)


def test_kernels_that_take_longer_hide_all_fetches_but_the_first() -> None:
    result = fetching("zero3_offload", 1e12, batch=64)
    run = result.run
    forward = [o for o in last(run, "compute") if o.phase == "forward"]
    workload = run.workload
    first = BF16 * (workload.vocab_elements + workload.layer_elements) / 1e12
    lowest, highest = sum(o.duration for o in forward), sum(o.duration for o in forward) + first
    assert lowest <= result.durations["forward"] <= highest * (1 + 1e-6)
