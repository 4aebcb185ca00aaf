"""PatrickStar against what its paper derives on paper."""

from __future__ import annotations

import pytest
from conformance import Case, last, node

from offsim.results.result import Result
from offsim.schedulers.chunks import CHUNKS

ONE = {"data_parallel": 1}
MODEL = {"layers": 8, "flash_attention": True}
CHUNK = 2_000_000
"""Bytes; three make a layer of this model."""


def run(capacity: float = 1e12, **options: object) -> Result:
    case = Case("patrickstar", {"chunk_bytes": CHUNK, **options}, training=ONE, model=MODEL)
    return case.simulate(node(gpu={"memory_bytes": capacity}))


def held(result: Result, occupant: str) -> float:
    """Bytes on the GPU at the end."""
    return result.run.ranks[0].gpu_memory.occupants[occupant]


def without_chunks() -> float:
    """The peak of what is no model data: with room for nothing but a layer's three chunks, less these."""
    return run(gpu_chunks=3).gpu_peak_bytes - 3 * CHUNK


def test_model_data_are_fourteen_bytes_a_parameter() -> None:
    """fp16 parameters, in whose place gradients come, and p, m and v in fp32 (section 6.1: 14 M bytes)."""
    result = run(gpu_chunks=3)
    assert result.host_peak_bytes == pytest.approx(14 * result.run.workload.parameters)


@pytest.mark.parametrize("chunks", [4, 11, 23])
def test_chunks_fill_what_the_warm_up_leaves(chunks: int) -> None:
    capacity = without_chunks() + (chunks + 0.5) * CHUNK
    result = run(capacity)
    assert held(result, CHUNKS) == chunks * CHUNK
    assert result.gpu_peak_bytes == pytest.approx(capacity - 0.5 * CHUNK)
    assert not result.run.ranks[0].gpu_memory.occupants.get("optimizer state p, m, v (fp32)")


@pytest.mark.parametrize("layers", [0, 3, 8])
@pytest.mark.parametrize("margin", [True, False])
def test_what_all_chunks_leave_is_for_optimizer_state(layers: int, margin: bool) -> None:
    """State of so many layers is updated on the GPU, and nothing of them crosses the link."""
    elements = run().run.workload.layer_elements
    result = run(without_chunks() + 24 * CHUNK + (layers + 0.5) * 12 * elements, margin=margin)
    on_gpu = layers if margin else 0
    state = result.run.ranks[0].gpu_memory.occupants.get("optimizer state p, m, v (fp32)", 0.0)
    assert state == 12 * on_gpu * elements
    assert [o.subgroup for o in last(result.run, "gpu_adam")] == list(range(1, 1 + on_gpu))
    assert sum(o.bytes for o in last(result.run) if o.name == "fetch chunk") == 2 * (8 - on_gpu) * elements
    assert result.host_peak_bytes == pytest.approx(14 * (result.run.workload.parameters - on_gpu * elements))


def test_every_chunk_more_saves_a_fetch_and_an_eviction() -> None:
    """Until all chunks stay from forward to backward."""
    counts = []
    for chunks in range(3, 25):
        result = run(gpu_chunks=chunks, margin=False)
        names = [o.name for o in last(result.run)]
        counts.append((names.count("fetch chunk"), names.count("evict chunk")))
    assert counts == [(2 * 24 - chunks, 2 * 24 - chunks) for chunks in range(3, 25)]


def test_gradients_leave_behind_their_kernels() -> None:
    """With room for one layer, its chunks leave once its backward has run."""
    result = run(gpu_chunks=3)
    backward = [o for o in last(result.run) if o.phase == "backward"]
    kernels = {o.layer: o for o in backward if o.kind == "compute" and o.layer >= 0}
    evictions = sorted((o for o in backward if o.name == "evict chunk"), key=lambda o: o.started_at)
    assert len(evictions) == 7 * 3
    for number, evicted in enumerate(evictions):
        assert evicted.started_at >= kernels[7 - number // 3].ended_at
