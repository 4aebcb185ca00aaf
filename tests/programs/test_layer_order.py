"""Layer-major order: all micro-batches of an iteration run through a layer before the next one."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from small_scenarios import profile, scenario, small_buckets

from offsim.platform.platform import HOST
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.schedulers.no_offload import NoOffload
from offsim.schedulers.registry import BUILT_IN
from offsim.schedulers.zero3_offload import Zero3Offload


class LayerMajor(NoOffload):
    name = "layer_major"
    order = "layer"


class LayerMajorOffload(Zero3Offload):
    name = "layer_major_offload"
    order = "layer"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with patch.dict(BUILT_IN, {cls.name: cls for cls in (LayerMajor, LayerMajorOffload)}):
        yield


STEPS = 3


def small(scheduler: str, *, reuse: int = 20_000, **placement: object) -> Result:
    training = {"data_parallel": 2, "global_batch": 2 * STEPS}
    source = {**scenario(scheduler, training=training, model={"layers": 6}), "placement": placement}
    with small_buckets(reuse=reuse):
        return simulate(source, profile=profile())


def names(result: Result, phase: str, kind: str = "compute") -> list[str]:
    run = result.run
    return [
        o.name
        for o in sorted(run.operations, key=lambda o: o.started_at)
        if o.iteration == run.last and o.phase == phase and o.kind == kind
    ]


def test_all_micro_batches_run_through_a_layer_before_the_next() -> None:
    result = small("layer_major")
    layers = [f"layer {layer} forward" for layer in range(6) for _ in range(STEPS)]
    assert names(result, "forward") == ["embedding"] * STEPS + layers + ["head and loss"] * STEPS
    layers = [f"layer {layer} backward" for layer in reversed(range(6)) for _ in range(STEPS)]
    assert names(result, "backward") == ["head backward"] * STEPS + layers + ["embedding backward"] * STEPS
    assert result.phases["phase"].to_list() == ["forward", "backward", "update"]


def test_layers_are_gathered_once_for_all_micro_batches() -> None:
    by_layer, by_step = small("layer_major"), small("no_offload")

    def gathered(result: Result) -> float:
        kept = {f"all-gather layer {layer}" for layer in range(6)}
        run = result.run
        return sum(o.bytes for o in run.operations if o.iteration == run.last and o.name in kept)

    assert gathered(by_step) == STEPS * gathered(by_layer)


def test_gradients_are_reduced_once_for_all_micro_batches() -> None:
    by_layer, by_step = small("layer_major"), small("no_offload")
    assert len(names(by_step, "backward", "reduce_scatter")) == STEPS * len(
        names(by_layer, "backward", "reduce_scatter")
    )


def test_the_same_kernels_run_in_another_order() -> None:
    by_layer, by_step = small("layer_major"), small("no_offload")
    for phase in ("forward", "backward"):
        assert sorted(names(by_layer, phase)) == sorted(names(by_step, phase))


def test_activations_of_all_micro_batches_wait_at_once() -> None:
    by_layer, by_step = small("layer_major"), small("no_offload")
    workload = by_layer.run.workload
    kept = [result.peaks[0].occupants["activations"] for result in (by_layer, by_step)]
    assert kept[0] > 2 * kept[1]
    assert kept[0] <= STEPS * (6 + 2) * workload.hidden_bytes


def test_parameters_in_host_memory_come_once_for_all_micro_batches() -> None:
    """What a layer-major order is for: 2 x 2 B a parameter in place of 2 x 2 B for each micro-batch."""
    by_layer, by_step = (small(name, parameters=HOST) for name in ("layer_major_offload", "zero3_offload"))

    def fetched(result: Result) -> float:
        run = result.run
        found = [o for o in run.operations if o.name == "fetch parameters" and o.iteration == run.last and o.layer >= 0]
        return sum(o.bytes for o in found if o.layer < 6)

    workload = by_layer.run.workload
    live = max(-(-20_000 // workload.layer_elements), 2)
    assert fetched(by_layer) == pytest.approx(2 * (2 * 6 - live) * workload.layer_elements / 2)
    assert fetched(by_step) == pytest.approx(STEPS * fetched(by_layer))


def test_activations_elsewhere_come_back_in_the_order_of_use() -> None:
    result = small("layer_major", activations={"tier": HOST})
    run = result.run
    moved = [o for o in run.operations if o.iteration == run.last and o.name == "activations"]
    back = [o.layer for o in sorted(moved, key=lambda o: o.started_at) if o.kind == "h2d"]
    assert back == [layer for layer in reversed(range(5)) for _ in range(STEPS)]
    assert sum(o.bytes for o in moved if o.kind == "d2h") == STEPS * 5 * run.workload.hidden_bytes
    assert run.settled
