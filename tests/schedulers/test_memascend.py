"""MemAscend: each switch saves what it says, and with all of them off it is ZeRO-Infinity."""

from __future__ import annotations

import pytest
from conformance import FREE, Case, facts, free_but, last, moved

from offsim.results.result import Result

STORED = {"max_in_cpu": 0, "parameter_buffer_count": 10, "parameter_buffer_size": 3_000_000}
OFF = {"parameter_buffers": "largest", "pinned": "power_of_two", "overflow_check": "separate"}
MODEL = {"hidden": 1024, "vocab": 2048}
"""Slices of layers' matrices of 1 MiB and more on one rank."""


def simulated(scheduler: str = "memascend", **options: object) -> Result:
    training = {"data_parallel": 1, "subgroup_size": 1_500_000}
    return Case(scheduler, {**STORED, **options}, {"parameters": "nvme"}, training, MODEL).simulate()


def host_peak(result: Result) -> dict[str, float]:
    """The most that each occupant of host memory has at once."""
    (tier,) = (tracked.memory for tracked in result.run.platform.tiers if tracked.name == "host")
    found: dict[str, float] = {}
    for _, occupant, nbytes, _ in tier.series:
        found[occupant] = max(nbytes, found.get(occupant, 0.0))
    return found


def test_with_every_switch_off_it_moves_and_holds_what_zero_infinity_does() -> None:
    theirs, ours = simulated("zero_infinity"), simulated(**OFF)
    assert moved(ours.run) == moved(theirs.run)
    held = host_peak(ours)
    workload = ours.run.workload
    assert held.pop("temporaries of the overflow check") == 3 * workload.partition
    assert held == host_peak(theirs)
    (check,) = (o for o in last(ours.run) if o.name == "overflow check")
    assert check.bytes == 12 * workload.partition
    assert ours.iteration_s == pytest.approx(theirs.iteration_s + check.ended_at - check.started_at)


def test_buffers_by_size_are_those_of_each_tensor() -> None:
    """Two layers of query, key and value, output and the two projections, and one vocabulary."""
    held = host_peak(simulated())
    hidden, ffn = 1024, 1024
    layer = hidden * hidden + 2 * hidden * hidden + hidden * hidden + 2 * hidden * ffn + hidden * ffn
    assert held["parameter buffers"] == 2 * (2 * layer + 2048 * hidden)
    assert host_peak(simulated(parameter_buffers="largest"))["parameter buffers"] == pytest.approx(60e6, rel=1e-3)


def test_pinned_buffers_round_to_pages_or_to_powers_of_two() -> None:
    result = simulated()
    largest = max(s.elements for s in result.run.workload.subgroups)
    exact, rounded = (host_peak(r)["swap buffers (pinned)"] / 4 for r in (result, simulated(pinned="power_of_two")))
    assert exact % 4096 == 0
    assert 4 * largest <= exact < 4 * largest + 4096
    assert rounded / 2 < exact < rounded == 2 ** (int(rounded) - 1).bit_length()


def test_state_in_16_bits_saves_six_bytes_each_way() -> None:
    """With storage alone taking time, 12 of the 38 B a parameter."""
    training = {"data_parallel": 1}
    rates = {"read_bytes_per_s": 1e9, "write_bytes_per_s": 1e9}
    hardware = free_but(nvme=rates, host={"scale_params_per_s": FREE})
    known = facts(Case("memascend", {}, {}, training))
    full, half = (
        Case("memascend", {"optimizer_dtype": dtype}, {}, training).simulate(hardware).iteration_s
        for dtype in ("fp32", "bf16")
    )
    assert full - half == pytest.approx(12 * known.owned / 1e9)
