"""GreedySnake: bytes whatever the number of micro-batches, the late share, memory and perfect overlap."""

from __future__ import annotations

import pytest
from conformance import Case, facts, last, moved, node

ONE = {"data_parallel": 1}


@pytest.mark.parametrize("micro_batches", [1, 2, 8])
def test_only_inputs_of_layers_grow_with_the_micro_batches(micro_batches: int) -> None:
    """2bsh of each layer but the last, each way; ZeRO-Infinity reads parameters in each of its micro-steps."""
    one, many = (Case("greedysnake", training={**ONE, "global_batch": n}).simulate() for n in (1, micro_batches))
    workload = one.run.workload
    grown = (micro_batches - 1) * (workload.model.layers - 1) * workload.hidden_bytes
    before, after = moved(one.run)[0], moved(many.run)[0]
    expected = {route: nbytes + (grown if route in ("h2d", "d2h") else 0) for route, nbytes in before.items()}
    assert after == pytest.approx(expected)


@pytest.mark.parametrize("late", [0.0, 0.25, 1.0])
def test_the_late_share_is_read_after_backward(late: float) -> None:
    case = Case("greedysnake", {"late": late}, training=ONE)
    run = case.simulate().run
    reads = [o for o in last(run) if o.name == "read p, m, v"]
    late_bytes = sum(o.bytes for o in reads if o.phase == "update")
    assert late_bytes == pytest.approx(late * sum(o.bytes for o in reads))
    assert sum(o.bytes for o in reads) == pytest.approx(12 * facts(case).owned)


def test_peaks_are_those_of_the_states_in_flight() -> None:
    case = Case("greedysnake", {"window": 2, "state_buffers": 3}, training={**ONE, "global_batch": 4})
    known, peaks = facts(case), {peak.tier: peak.bytes for peak in case.simulate().peaks}
    workload = known.workload
    largest = max(workload.layer_elements, workload.vocab_elements)
    layer = max(s.elements for s in workload.subgroups)
    inputs = 4 * (workload.model.layers - 1) * workload.hidden_bytes
    assert peaks["host"] == pytest.approx(2 * 2 * largest + 3 * 12 * layer + 2 * known.owned + inputs)
    assert peaks["nvme"] == pytest.approx(14 * known.owned)


def test_long_kernels_hide_updates_entirely() -> None:
    """Storage, Adam and links do in a pass what they have to: the iteration is the kernels' time."""
    run = Case("greedysnake", training=ONE).simulate(node(gpu={"matrix_flops_per_s": 3e9})).run
    kernels = sum(o.duration for o in last(run, "compute"))
    assert run.ended_at - run.started_at == pytest.approx(kernels, rel=0.01)


def test_a_late_share_shortens_an_iteration_whose_backward_is_short() -> None:
    """With the storage at rest in forward, a share of the update that runs there is hidden."""
    hardware = node(gpu={"matrix_flops_per_s": 5e10}, nvme={"read_bytes_per_s": 1e9, "write_bytes_per_s": 1e9})
    cases = [Case("greedysnake", {"late": late}, training=ONE, model={"layers": 12}) for late in (0.0, 0.25)]
    whole, split = (case.simulate(hardware).iteration_s for case in cases)
    assert split < 0.95 * whole
