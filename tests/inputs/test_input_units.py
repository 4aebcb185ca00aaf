"""Numbers with units: what they mean, and that a unit of another kind is an error with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from offsim.inputs.errors import Expected, InputError
from offsim.inputs.units import without_unit
from offsim.platform.profiles import load_profile
from offsim.scenario import load_scenario, scenario_profile
from offsim.study.sweeps.sweep_file import read_sweep


@pytest.mark.parametrize(
    ("field", "text", "number"),
    [
        ("memory_bytes", "48GB", 48e9),
        ("memory_bytes", "64GiB", 64 * 2**30),
        ("memory_bytes", "2 TiB", 2 * 2**40),
        ("memory_bytes", "1.5e3 kB", 1.5e6),
        ("h2d_bytes_per_s", "25GB/s", 25e9),
        ("nic_bytes_per_s", "400Gb/s", 50e9),
        ("copy_latency_s", "150us", 150e-6),
        ("copy_latency_s", "150 \N{MICRO SIGN}s", 150e-6),
        ("peak_flops_per_s", "312TFLOP/s", 312e12),
        ("peak_flops_per_s", "312 TFLOPS", 312e12),
        ("adam_params_per_s", "5Gparams/s", 5e9),
    ],
)
def test_what_units_mean(field: str, text: str, number: float) -> None:
    assert without_unit(field, text) == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", 5),
        ("memory_bytes", "5e9"),
        ("memory_bytes", "fast"),
        ("name", "5GB"),
        ("memory_bytes", "x2"),
        ("memory_bytes", "9" * 99 + "GB"),
    ],
)
def test_what_has_no_unit_stays_as_it_is(field: str, value: object) -> None:
    assert without_unit(field, value) is value


@pytest.mark.parametrize("text", ["5us", "25GB/s", "48gb", "48G", "1GIB", "5GB/ms", "5x"])
def test_other_units_are_errors(text: str) -> None:
    with pytest.raises(Expected, match=r"^expected bytes, such as 48GB or 64GiB$"):
        without_unit("memory_bytes", text)


def test_a_scenario_and_its_changes_take_units() -> None:
    changes = [
        "gpu.memory_bytes=64GiB",
        "link.copy_latency_s=150us",
        "scheduler.name=patrickstar",
        "scheduler.chunk_bytes=32MB",
    ]
    scenario = load_scenario("patrickstar_10b_1xa100", changes)
    profile = scenario_profile(scenario)
    assert (profile.gpu.memory_bytes, profile.link.copy_latency_s) == (64 * 2**30, 150e-6)


def test_a_wrong_unit_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = "name: mine\nvalidated: false\nextends: gh200\ngpu:\n  memory_bytes: {value: 80GiB, source: datasheet}\n"
    path.write_text(text)
    assert load_profile(path).gpu.memory_bytes == 80 * 2**30
    path.write_text(text.replace("80GiB", "80us"))
    with pytest.raises(InputError, match=r"mine.yaml:5: gpu.memory_bytes.value: found '80us', expected bytes, such as"):
        load_profile(path)
    path.write_text(text.replace("source", "low: 70GiB, high: 90GiB, source"))
    assert load_profile(path).provenance["gpu.memory_bytes"].high == 90 * 2**30


def test_a_sweep_takes_units_in_lists_ranges_and_conditions() -> None:
    name, size = "hardware_changes.link.h2d_bytes_per_s", "hardware_changes.gpu.memory_bytes"
    axes = {name: ["x2", "25GB/s", 5e10], size: {"from": "40GB", "to": "80GB", "step": "20GB"}}
    sweep = read_sweep({"base": "dos_20b_4xh100", "axes": axes, "skip": [{name: "50GB/s"}]})
    first, second = sweep.axes[1:]
    assert [value for (value,) in first.values] == [cell for (cell,) in first.cells] == ["x2", 25e9, 5e10]
    assert [value for (value,) in second.values] == [40e9, 60e9, 80e9]
    assert len(list(sweep.positions())) == 2 * 3


def test_a_sweep_takes_parts() -> None:
    sweep = read_sweep({"base": "dos_20b_4xh100", "axes": {"hardware_changes.link": ["pcie4x16", "pcie5x16"]}})
    assert [cell for (cell,) in sweep.axes[1].cells] == ["pcie4x16", "pcie5x16"]
    with pytest.raises(InputError, match="unknown part 'pcie9x16'"):
        read_sweep({"base": "dos_20b_4xh100", "axes": {"hardware_changes.link": ["pcie9x16"]}})
