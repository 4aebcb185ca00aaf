"""Smart-Infinity: bytes inside the devices, time of an update inside them, overlap, and profiles of such devices."""

from __future__ import annotations

from collections import defaultdict

import pytest
from conformance import TIERS, Case, facts, free_but, last, node
from pydantic import ValidationError

from offsim.platform.hardware import TierSpec
from offsim.programs.run import Run

ONE = {"data_parallel": 1}
DEVICES = TIERS["csd"]["devices"]


def inside(run: Run) -> dict[str, float]:
    """Bytes that devices read and write for their kernels in the last iteration."""
    found: dict[str, float] = defaultdict(float)
    for operation in last(run, "csd device read", "csd device write"):
        found[operation.kind] += operation.bytes
    return found


@pytest.mark.parametrize(
    ("options", "read"),
    [({"exchange_dtype": "fp32"}, 16), ({}, 14), ({"exchange_dtype": "fp32", "compression": 0.02}, 12.08)],
)
def test_devices_read_gradients_and_state_and_write_state(options: dict[str, object], read: float) -> None:
    case = Case("smart_infinity", options, training=ONE)
    owned = facts(case).owned
    assert inside(case.simulate().run) == pytest.approx(
        {"csd device read": read * owned, "csd device write": 12 * owned}
    )


def busiest(case: Case) -> list[list[int]]:
    """Elements of the sub-groups of each batch."""
    groups = [s.elements for s in facts(case).workload.subgroups]
    return [groups[i : i + DEVICES] for i in range(0, len(groups), DEVICES)]


def test_a_serial_update_takes_the_longest_device_of_each_batch() -> None:
    rates = {"device_read_bytes_per_s": 3e9, "device_write_bytes_per_s": 2e9, "device_params_per_s": 1e8}
    case = Case("smart_infinity", {"overlap": False, "exchange_dtype": "fp32"}, training=ONE)
    seconds = sum(max(batch) * (16 / 3e9 + 1 / 1e8 + 12 / 2e9) for batch in busiest(case))
    assert case.simulate(free_but(csd=rates)).iteration_s == pytest.approx(seconds, rel=1e-6)


def test_with_overlap_a_device_is_never_idle_where_only_its_storage_is_slow() -> None:
    """A batch's reads begin while the writes before them end: each device takes its bytes over its rates."""
    case = Case("smart_infinity", {"exchange_dtype": "fp32"}, training=ONE)
    rates = {"device_read_bytes_per_s": 3e9, "device_write_bytes_per_s": 2e9}
    owned = [sum(batch[i] for batch in busiest(case) if i < len(batch)) for i in range(DEVICES)]
    least = max(owned) * (16 / 3e9 + 12 / 2e9)
    measured = case.simulate(free_but(csd=rates)).iteration_s
    serial = Case("smart_infinity", {"exchange_dtype": "fp32", "overlap": False}, training=ONE)
    assert least * (1 - 1e-9) <= measured <= serial.simulate(free_but(csd=rates)).iteration_s * (1 + 1e-9)


def test_overlap_hides_the_kernels_of_the_next_batch() -> None:
    rates = {"device_read_bytes_per_s": 3e9, "device_write_bytes_per_s": 2e9, "device_params_per_s": 1e8}
    overlapped, serial = (
        Case("smart_infinity", {"overlap": overlap}, training=ONE).simulate(free_but(csd=rates)).iteration_s
        for overlap in (True, False)
    )
    assert overlapped < 0.97 * serial


def test_twice_the_devices_halve_an_update_inside_them() -> None:
    case = Case("smart_infinity", training={**ONE, "subgroup_size": 50_000}, model={"layers": 16})
    rates = {"device_read_bytes_per_s": 1e8, "device_write_bytes_per_s": 1e8}
    few, many = (case.simulate(node(csd={**rates, "devices": n})).durations["update"] for n in (2, 4))
    assert many == pytest.approx(few / 2, rel=0.15)


def test_state_and_gradients_are_in_the_devices() -> None:
    case = Case("smart_infinity", {"exchange_dtype": "fp32"}, training=ONE)
    peaks = {peak.tier: peak.bytes for peak in case.simulate().peaks}
    owned = facts(case).owned
    assert peaks["csd"] == pytest.approx(16 * owned)
    assert peaks["host"] == pytest.approx(2 * owned + 4 * max(map(sum, busiest(case))))


def test_a_tier_of_such_devices_needs_their_rates() -> None:
    with pytest.raises(ValidationError, match="expected a rate, as the tier is of kind csd"):
        TierSpec(kind="csd", capacity_bytes=1e12, read_bytes_per_s=1e9, write_bytes_per_s=1e9)
