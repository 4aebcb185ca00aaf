"""Correlations in profiles: what they say, how profiles inherit them, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import available_profiles, load_profile, scenario_profile
from offsim.scenario import load_scenario

HBM, LATENCY = "gpu.hbm_bytes_per_s", "link.copy_latency_s"
UP, DOWN = "link.d2h_bytes_per_s", "link.h2d_bytes_per_s"
OWN = """\
name: own
validated: false
extends: workstation-rtx4090
gpu:
  hbm_bytes_per_s: {value: 9e11, low: 8e11, high: 9.5e11, unit: B/s, source: fitted}
link:
  copy_latency_s: {value: 1e-5, low: 8e-6, high: 2e-5, unit: s, source: fitted}
  d2h_bytes_per_s: {value: 2e10, low: 1e10, high: 3e10, unit: B/s, source: fitted}
correlations:
  gpu.hbm_bytes_per_s: []
  link.d2h_bytes_per_s: [0.5]
  link.copy_latency_s: [-0.25, 0.4]
"""
PAIRS = {(HBM, UP): 0.5, (HBM, LATENCY): -0.25, (LATENCY, UP): 0.4}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def extending(own: Path, text: str) -> HardwareProfile:
    path = own.with_name("other.yaml")
    path.write_text(f"name: other\nvalidated: false\nextends: own.yaml\n{text}")
    return load_profile(path)


def test_each_value_has_those_with_the_values_above_it(own: Path) -> None:
    assert load_profile(own).correlations == PAIRS
    assert load_profile("workstation-rtx4090").correlations == {}


def test_an_extension_inherits_those_among_the_values_that_it_inherits(own: Path) -> None:
    assert extending(own, "").correlations == PAIRS
    down = "  h2d_bytes_per_s: {value: 2e10, low: 1e10, high: 3e10, unit: B/s, source: fitted}\n"
    assert extending(own, f"link:\n{down}").correlations == PAIRS
    up = "link:\n  d2h_bytes_per_s: {value: 1e10, low: 9e9, high: 2e10, unit: B/s, source: fitted}\n"
    rest = {(HBM, LATENCY): -0.25}
    assert extending(own, up).correlations == rest
    # what it says itself, of values of its own and inherited ones, counts
    rows = f"correlations:\n  {DOWN}: []\n  {UP}: [0.9]\n"
    assert extending(own, f"{up}{down}{rows}").correlations == rest | {(UP, DOWN): 0.9}
    rows = f"correlations:\n  {LATENCY}: []\n  {HBM}: [0.1]\n"
    assert extending(own, rows).correlations == PAIRS | {(HBM, LATENCY): 0.1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("x2", PAIRS),
        ("2e10", {(HBM, LATENCY): -0.25}),
    ],
)
def test_a_scenario_that_sets_a_value_leaves_it_alone_with_its_error(
    own: Path, change: str, expected: dict[str, Any]
) -> None:
    overrides = [f"hardware={own}", f"hardware_changes.{UP}={change}"]
    assert scenario_profile(load_scenario("zero3_3b_rtx4090", overrides)).correlations == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0.5]", "[1.5]", ":11: correlations.link.d2h_bytes_per_s.0: found 1.5, expected at most 1"),
        ("[0.5]", "[half]", ":11: correlations.link.d2h_bytes_per_s.0: found 'half', expected a number"),
        ("[0.5]", "0.5", ":11: correlations.link.d2h_bytes_per_s: found 0.5, expected a list"),
        (
            "[0.5]",
            "[0.5, 1]",
            ":11: correlations.link.d2h_bytes_per_s: found 2 numbers, expected 1, one for each value above",
        ),
        (
            "[-0.25, 0.4]",
            "[-0.25]",
            ":12: correlations.link.copy_latency_s: found 1 number, expected 2, one for each value above",
        ),
        (
            "  link.d2h_bytes_per_s: [",
            "  link.d2h_byte_per_s: [",
            ":11: unknown value 'link.d2h_byte_per_s' in correlations; did you mean 'link.d2h_bytes_per_s'?",
        ),
        (
            "  link.d2h_bytes_per_s: [",
            "  link.h2d_bytes_per_s: [",
            ":11: correlations.link.h2d_bytes_per_s: found a value without low and high, expected one with an interval",
        ),
        ("  link.d2h_bytes_per_s: [", "  gpu.hbm_bytes_per_s: [", ":11: duplicate key 'correlations.gpu.hbm_bytes"),
        ("[-0.25, 0.4]", "[-0.9, 0.9]", ":9: correlations: found numbers that contradict one another"),
    ],
)
def test_what_is_wrong_with_correlations(own: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    own.write_text(OWN.replace(old, new))
    with pytest.raises(InputError) as error:
        load_profile(own)
    assert str(error.value).startswith(f"{own}{message}")


def test_an_extension_cannot_contradict_what_it_inherits(own: Path) -> None:
    with pytest.raises(InputError, match=r"other\.yaml:4: correlations: found numbers that contradict one another"):
        extending(own, f"correlations:\n  {HBM}: []\n  {UP}: [1]\n")


def test_two_digits_of_values_that_make_up_for_one_another_are_taken(own: Path) -> None:
    # All of -0.5 in three pairs leave the sum exactly known; rounded up they would leave less than nothing.
    own.write_text(OWN.replace("[0.5]", "[-0.505]").replace("[-0.25, 0.4]", "[-0.505, -0.505]"))
    assert set(load_profile(own).correlations.values()) == {-0.505}


@pytest.mark.parametrize("name", available_profiles())
def test_what_shipped_profiles_say_leaves_no_negative_variance(name: str) -> None:
    profile = load_profile(name)
    names = sorted({value for pair in profile.correlations for value in pair})
    matrix = np.eye(len(names))
    for (one, other), correlation in profile.correlations.items():
        i, j = names.index(one), names.index(other)
        matrix[i, j] = matrix[j, i] = correlation
    assert not names or np.linalg.eigvalsh(matrix)[0] > -1e-9
