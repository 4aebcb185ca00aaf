"""LoHan: memory, order of sub-groups, and what bounds an iteration."""

from __future__ import annotations

import pytest
from conformance import FREE, Case, facts, free_but, last, node

from offsim.engine import Operation
from offsim.programs.run import Run

CASE = Case("lohan", {"window": 2}, training={"data_parallel": 1})


def named(run: Run, name: str) -> dict[int, Operation]:
    """Sub-group -> its operation of that name in the last iteration; of several the last."""
    return {o.subgroup: o for o in last(run) if o.name == name}


def test_peaks_are_those_of_the_states_in_flight() -> None:
    known = facts(CASE)
    result = CASE.simulate()
    peaks = {peak.tier: peak.bytes for peak in result.peaks}
    workload = known.workload
    largest = max(s.elements for s in workload.subgroups)
    inputs = (workload.model.layers - 1) * 2 * workload.hidden_bytes
    window = 2 * 2 * max(workload.layer_elements, workload.vocab_elements)
    assert peaks["host"] == pytest.approx((3 * (12 + 4) + 2) * largest + window + inputs)
    assert peaks["nvme"] == pytest.approx((12 + 2) * known.owned)


def test_a_sub_group_is_updated_when_the_next_one_begins_and_written_one_later() -> None:
    run = CASE.simulate().run
    groups = [s.index for s in run.workload.subgroups]
    reads, writes = named(run, "read p, m, v"), named(run, "write p, m, v")
    adams = {o.subgroup: o for o in last(run, "cpu_adam")}
    assert len(groups) > 3
    assert set(reads) == set(writes) == set(adams) == set(groups)
    for index in groups[:-1]:  # backward comes to them from the last to the first
        assert adams[index].started_at >= reads[index].ended_at
        assert writes[index + 1].started_at >= reads[index].ended_at
        assert writes[index + 1].started_at >= adams[index + 1].ended_at
        assert reads[index].enqueued_at < adams[index + 1].ended_at


def test_long_kernels_hide_all_but_the_last_sub_group() -> None:
    """Compute takes longer than everything else: it, and the tail of the first sub-group, are the iteration."""
    run = Case("lohan", training={"data_parallel": 1}).simulate(node(gpu={"matrix_flops_per_s": 1e9})).run
    kernels = sum(o.duration for o in last(run, "compute"))
    tail = max(o.ended_at for o in last(run)) - max(o.ended_at for o in last(run, "compute"))
    first = named(run, "write p, m, v")[0]
    assert run.ended_at - run.started_at == pytest.approx(kernels + tail, rel=0.01)
    assert 0 < tail < 4 * first.duration + 0.01 * kernels


@pytest.mark.parametrize("rate", [1e8, 1e9])
def test_slow_storage_takes_what_it_reads_and_writes(rate: float) -> None:
    """16 B a parameter read and 14 written, but for the layers that stay on the GPU between the passes."""
    known = facts(CASE)
    workload = known.workload
    stay = 2 * workload.layer_elements + 2 * workload.vocab_elements
    seconds = (16 * known.owned - 2 * stay + 14 * known.owned) / rate
    norms = 2 * 2 * workload.model.hidden  # the final norm is not fetched, but updated
    storage = {"read_bytes_per_s": rate, "write_bytes_per_s": rate}
    measured = CASE.simulate(free_but(nvme=storage, link={"h2d_bytes_per_s": FREE})).iteration_s
    assert measured == pytest.approx(seconds, abs=norms / rate)
