"""Profiles of parts: complete, each value with its source; how far predictions with them are from measured runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from offsim import simulate
from offsim.cli import main
from offsim.platform.parts import assembled, catalogue
from offsim.platform.profile_yaml import profile_yaml
from offsim.platform.profiles import available_profiles, load_profile
from offsim.scenario import load_scenario, scenario_profile
from offsim.validation.predictions import Prediction, Validation, predict
from offsim.validation.ranking import rankings
from offsim.validation.run_table import SHIPPED_RUNS, read_runs
from offsim.validation.score import comparisons, scores
from tests.inputs.messages import message_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "your_machine.md"
PARTS = {"gpu": "a100-80g", "count": 8, "cpu": "2 x EPYC 7742", "memory_bytes": "1TiB"}
MADE = {name: path for name, path in available_profiles().items() if path.read_text().startswith("# offsim profiles")}

JLSE = {"gpu": "h100-sxm", "count": 4, "cpu": "2 x 48 cores, 8 x DDR5-4800", "memory_bytes": "512GiB"}
POLARIS = {
    "gpu": "a100-40g",
    "count": 4,
    "cpu": "EPYC 7543P",
    "memory_bytes": "512GiB",
    "network_bytes_per_s": "400Gb/s",
}
MEASURED = {
    "jlse-4xh100": (JLSE, {"jlse-4xh100"}),
    "polaris-4xa100-numa-bound": (POLARIS, {"polaris-4xa100", "polaris-4xa100-numa-bound"}),
    "polaris-4xa100": (POLARIS, {"polaris-4xa100", "polaris-4xa100-numa-bound"}),
}
"""Hardware of the measured runs -> its parts, and the profiles that are fitted on it."""


def test_a_profile_of_parts_is_what_datasheets_say() -> None:
    profile = assembled("mine", PARTS | {"nvme": "4 x gen4 7.68TB", "network_bytes_per_s": "1.6Tb/s"})
    assert (profile.name, profile.gpus_per_node, profile.validated) == ("mine", 8, False)
    assert profile.gpu.peak_flops_per_s == 312e12
    assert profile.host.memory_bytes == 2**40
    assert (profile.host.numa_domains, profile.host.cores, profile.host.cores_per_rank) == (2, 64, 16)
    assert 0.7 < profile.host.memory_bytes_per_s / (8 * 3200e6 * 8) < 0.9
    assert profile.link.peak_bytes_per_s == 31.5e9
    assert profile.tiers["nvme"].capacity_bytes == 4 * 7.68e12
    assert profile.interconnect.nic_bytes_per_s == pytest.approx(0.945 * 1.6e12 / 8)
    assert profile.interconnect.over_pcie == 0


def test_every_value_of_a_profile_of_parts_has_a_source() -> None:
    profile = assembled("mine", PARTS)
    for name, origin in profile.provenance.items():
        assert len(origin.note) > 5, name
        assert origin.source != "fitted", name  # what was fitted was fitted on another machine
        assert ("fitted" in origin.note or " on jlse" in origin.note) <= ("not of this machine" in origin.note), name


def test_a_rule_gives_the_mean_of_what_it_found() -> None:
    profile = assembled("mine", PARTS)
    found = [load_profile(name).gpu for name in ("jlse-4xh100", "polaris-4xa100")]
    shares = [gpu.matrix_flops_per_s / gpu.peak_flops_per_s for gpu in found]
    assert profile.gpu.matrix_flops_per_s == pytest.approx(sum(shares) / 2 * 312e12, rel=1e-3)
    alone = assembled("mine", PARTS, without={"jlse-4xh100"})
    assert alone.gpu.matrix_flops_per_s == pytest.approx(shares[1] * 312e12, rel=1e-3)


def test_parts_that_differ_make_the_profiles_differ() -> None:
    plain = assembled("mine", PARTS)
    assert assembled("mine", PARTS | {"nvlink_bytes_per_s": 0}).interconnect.over_pcie == 1
    shared = assembled("mine", PARTS | {"gpus_per_uplink": 2}).link
    assert (shared.gpus_per_uplink, shared.uplink_bytes_per_s) == (2, plain.link.h2d_bytes_per_s)
    narrow = assembled("mine", PARTS | {"link": "pcie4x8"}).link
    assert narrow.h2d_bytes_per_s == plain.link.h2d_bytes_per_s / 2
    assert narrow.pageable_h2d_bytes_per_s == narrow.h2d_bytes_per_s < plain.link.pageable_h2d_bytes_per_s
    one = assembled("mine", PARTS | {"count": 1})
    assert (one.host.numa_domains, one.host.cores, one.host.cores_per_rank) == (1, 128, 128)
    assert one.host.memory_bytes_per_s == pytest.approx(2 * plain.host.memory_bytes_per_s, rel=1e-3)


@pytest.mark.parametrize("gpu", catalogue().gpus)
def test_every_gpu_of_the_catalogue_makes_a_profile(gpu: str) -> None:
    cpu = "grace" if gpu == "gh200" else "Xeon 8480C"
    profile = assembled("mine", {"gpu": gpu, "count": 2, "cpu": cpu, "memory_bytes": "1TB", "nvme": "gen5"})
    assert profile.gpu.matrix_flops_per_s < profile.gpu.peak_flops_per_s
    assert profile.gpu.hbm_bytes_per_s < (profile.gpu.peak_hbm_bytes_per_s or 0)
    assert profile.link.h2d_bytes_per_s < (profile.link.peak_bytes_per_s or 0)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"gpu": "a100"}, "unknown part 'a100'; expected a100-40g or a100-80g"),
        ({"gpu": "h300"}, "unknown part 'h300'; did you mean 'h200'?"),
        ({"cpu": "2 x EPIC 7742"}, "unknown part 'EPIC 7742'; did you mean 'epyc-7742'?"),
        ({"cpu": "0 x EPYC 7742"}, "unknown part '0 x EPYC 7742'"),
        ({"cpu": "2 x 0 cores, 8 x DDR5-4800"}, "cores: found 0, expected at least 1"),
        ({"cpu": "2 x 48 cores, 8 DDR"}, "memory: found '8 DDR', expected channels and their memory, such as"),
        ({"memory_bytes": "1TB/s"}, "memory_bytes: found '1TB/s', expected bytes, such as 48GB or 64GiB"),
        ({"link": "pcie9x16"}, "unknown part 'pcie9x16'; did you mean 'pcie"),
        ({"nvme": "4 x gen9"}, "unknown part 'gen9'; did you mean 'gen"),
        ({"nvme": "4 x gen4 5us"}, "nvme: found '4 x gen4 5us', expected bytes"),
        ({"nvme": "4 x gen4 5"}, "nvme: found '4 x gen4 5', expected the size of an SSD with its unit"),
        ({"cores": 5}, "unknown key 'cores'"),
    ],
)
def test_what_is_wrong_with_parts(part: dict[str, Any], message: str) -> None:
    assert message_of(lambda: assembled("mine", PARTS | part)).startswith(message)


@pytest.mark.parametrize("name", MADE)
def test_shipped_profiles_of_parts_are_what_their_command_makes(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Where what the rules go by was fitted anew: run the first line of each file in its folder, with the file away."""
    text = MADE[name].read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(text.partition("\n")[0])[2:]) == 0
    assert Path(f"{name}.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", MADE)
def test_shipped_profiles_of_parts_simulate_a_scenario(name: str) -> None:
    assert simulate("zero3_3b_rtx4090", [f"hardware={name}"]).fits


def test_the_commonest_nodes_are_shipped() -> None:
    assert set(MADE) == {"server-8xa100-80g", "server-8xh100", "server-1xl40s", "workstation-2xa6000"}


@pytest.mark.parametrize("name", available_profiles())
def test_a_profile_as_yaml_is_the_profile(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(profile_yaml(load_profile(name)), encoding="utf-8")
    assert load_profile(path) == load_profile(name)


def test_a_profile_is_not_overwritten(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["profiles", "new", "mine", "--gpu", "l40s", "--cpu", "EPYC 9354", "--memory", "1TiB"]
    assert main(command) == 0
    written = Path("mine.yaml").read_text()
    assert main([*command, "--count", "2"]) == 2
    assert "NAME 'mine.yaml': found a file of this name, expected a new one" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == written
    assert main(["profiles", "new", "other", *command[3:-1], "1TB/s"]) == 2
    assert "--memory '1TB/s': memory_bytes: found '1TB/s', expected bytes" in capsys.readouterr().err
    assert not Path("other.yaml").exists()


LINK = ("h2d_bytes_per_s", "d2h_bytes_per_s", "duplex_bytes_per_s", "uplink_bytes_per_s", "peak_bytes_per_s")


@pytest.mark.parametrize(
    "override", ["link=pcie5x16", "hardware_changes.link=pcie5x16", "hardware_changes={link: pcie5x16}"]
)
def test_a_named_link_sets_all_that_belongs_together(override: str) -> None:
    before = load_profile("workstation-rtx4090")
    after = scenario_profile(load_scenario("zero3_3b_rtx4090", [override]))
    assert [getattr(after.link, name) for name in LINK] == [2 * getattr(before.link, name) for name in LINK]
    assert after.link.pageable_h2d_bytes_per_s == before.link.pageable_h2d_bytes_per_s
    assert after.host == before.host
    scaled = "h2d_bytes_per_s, d2h_bytes_per_s, duplex_bytes_per_s, uplink_bytes_per_s x2; peak_bytes_per_s 6.3e+10"
    assert after.name == f"workstation-rtx4090 with link pcie5x16 ({scaled})"


def test_a_machines_own_part_in_its_place_changes_nothing() -> None:
    before = load_profile("jlse-4xh100")
    after = scenario_profile(load_scenario("dos_20b_4xh100", ["link=pcie5x16", "gpu=h100-sxm"]))
    assert (after.link, after.gpu) == (before.link, before.gpu)


def test_a_slower_link_slows_pageable_copies_too() -> None:
    before, after = (
        scenario_profile(load_scenario("dos_20b_4xh100", changes)).link for changes in ([], ["link=pcie3x16"])
    )
    assert after.h2d_bytes_per_s == pytest.approx(before.h2d_bytes_per_s / 4)
    assert after.pageable_h2d_bytes_per_s == after.h2d_bytes_per_s < before.pageable_h2d_bytes_per_s
    assert after.pageable_d2h_bytes_per_s == before.pageable_d2h_bytes_per_s


def test_values_beside_a_part_are_set_on_top_of_it() -> None:
    both = ["gpu=h200", "gpu.memory_bytes=100GB"]
    before, after = (scenario_profile(load_scenario("dos_20b_4xh100", changes)).gpu for changes in ([], both))
    assert after.memory_bytes == 100e9
    assert after.hbm_bytes_per_s == pytest.approx(before.hbm_bytes_per_s * 4.8 / 3.35)
    assert after.matrix_flops_per_s == before.matrix_flops_per_s  # the same chip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("link=pcie9x16", "unknown part 'pcie9x16'; did you mean 'pcie"),
        (
            "host=grace",
            "hardware_changes.host: found 'grace', expected a section of keys: parts are known of gpu, link",
        ),
        ("link.h2d_bytes_per_s=5us", "hardware_changes.link.h2d_bytes_per_s: found '5us', expected bytes per second"),
    ],
)
def test_what_is_wrong_with_a_named_part(override: str, message: str) -> None:
    found = message_of(lambda: scenario_profile(load_scenario("dos_20b_4xh100", [override])))
    assert found.startswith(f"override '{override}': {message}")


def row_of(hardware: str) -> str:
    """The errors of predictions of a machine's runs from its parts alone, as the documentation's table has them."""
    parts, fitted = MEASURED[hardware]
    profile = assembled("parts", parts, without=fitted)
    table = read_runs(SHIPPED_RUNS)
    predictions: list[Prediction] = [predict(run, profile) for run in table.runs if run.cell("hardware") == hardware]
    errors = scores(comparisons(Validation(table, tuple(predictions))))[hardware]
    shown = [
        f"{100 * errors[phase].median:.1f} / {100 * errors[phase].p90:.1f}"
        for phase in ("forward", "backward", "step", "sum")
    ]
    series = rankings(predictions)["scheduler"]
    found = f"{sum(one.agrees for one in series)} of {len(series)} series"
    return f"| {hardware} | {len(predictions)} | {' | '.join(shown)} | {found} |"


@pytest.mark.slow
@pytest.mark.parametrize("hardware", MEASURED)
def test_the_page_says_how_far_predictions_from_parts_are(hardware: str) -> None:
    (said,) = re.findall(rf"^\| {hardware} \|.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    numbers, now = (
        list(map(float, re.findall(r"[\d.]+(?= )", row.partition(" | ")[2]))) for row in (said, row_of(hardware))
    )
    assert numbers == pytest.approx(now, abs=2.0), now  # percent; write what it is now
