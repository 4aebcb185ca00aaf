"""Profiles: units, sources, extension, and messages that say what to write instead."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from offsim.inputs.errors import InputError
from offsim.inputs.units import unit_of
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile
from offsim.platform.profiles import available_profiles, load_profile
from offsim.scenario import load_scenario, scenario_profile
from tests.inputs.messages import message_of

BASE = """\
name: base
description: A small node
gpus_per_node: 2
validated: false
gpu:
  memory_bytes: {value: 4e10, unit: B, source: datasheet, note: "its datasheet"}
  reserved_bytes: {value: 1e9, unit: B, source: assumed}
  matrix_flops_per_s: {value: 2e14, unit: FLOP/s, source: measured, error: "3 %"}
  kernel_latency_s: {value: 8e-6, unit: s, source: assumed}
  hbm_bytes_per_s: {value: 1e12, unit: B/s, source: assumed}
  adam_params_per_s: {value: 4e10, unit: params/s, source: assumed}
  peak_flops_per_s: {value: 3e14, unit: FLOP/s, source: datasheet}
host:
  memory_bytes: {value: 5e11, unit: B, source: assumed}
  numa_domains: {value: 1, unit: 1, source: assumed}
  memory_bytes_per_s: {value: 7e10, unit: B/s, source: assumed}
  cores: {value: 32, unit: "1", source: assumed}
  cores_per_rank: {value: 7, unit: 1, source: assumed}
  adam_params_per_s: {value: 2e9, unit: params/s, source: assumed}
  scale_params_per_s: {value: 7e9, unit: params/s, source: assumed}
  downcast_params_per_s: {value: 9e9, unit: params/s, source: assumed}
  upcast_params_per_s: {value: 9e9, unit: params/s, source: assumed}
  module_launch_s: {value: 4e-3, unit: s, source: assumed}
  subgroup_launch_s: {value: 0, unit: s, source: assumed}
  update_start_s: {value: 0, unit: s, source: assumed}
link:
  h2d_bytes_per_s: {value: 2e10, unit: B/s, source: assumed}
  d2h_bytes_per_s: {value: 2e10, unit: B/s, source: assumed}
  duplex_bytes_per_s: {value: 4e10, unit: B/s, source: assumed}
  copy_latency_s: {value: 1e-5, unit: s, source: assumed}
  pageable_h2d_bytes_per_s: {value: 5e9, unit: B/s, source: assumed}
  pageable_d2h_bytes_per_s: {value: 5e9, unit: B/s, source: assumed}
interconnect:
  gpu_bytes_per_s: {value: 2e11, unit: B/s, source: assumed}
  collective_latency_s: {value: 3e-5, unit: s, source: assumed}
  collective_gpu_share: {value: 0.1, unit: 1, source: assumed}
"""

SCENARIO = {
    "hardware": "base.yaml",
    "model": dict(layers=2, hidden=64, ffn_hidden=256, heads=4, kv_heads=4, vocab=1000, sequence=128),
    "training": {"global_batch": 1},
    "scheduler": {"name": "no_offload"},
}

HEAD = "name: {name}\nvalidated: false\nextends: {base}\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def extending(base: Path, name: str, text: str, extends: str = "base.yaml") -> Path:
    path = base.with_name(f"{name}.yaml")
    path.write_text(HEAD.format(name=name, base=extends) + text)
    return path


def test_values_and_their_provenance(base: Path) -> None:
    profile = load_profile(base)
    assert profile.gpu.memory_bytes == 4e10
    assert profile.host.numa_domains == 1
    assert profile.tiers == {}
    memory, matrix = profile.provenance["gpu.memory_bytes"], profile.provenance["gpu.matrix_flops_per_s"]
    assert (memory.source, memory.note, memory.error) == ("datasheet", "its datasheet", "")
    assert (matrix.source, matrix.note, matrix.error) == ("measured", "", "3 %")


def test_an_extension_changes_what_it_gives_and_keeps_the_rest(base: Path) -> None:
    faster = extending(base, "faster", "gpu:\n  memory_bytes: {value: 8e10, unit: B, source: fitted}\n")
    fastest = extending(
        base, "fastest", "link:\n  uplink_bytes_per_s: {value: 3e10, unit: B/s, source: measured}\n", "./faster.yaml"
    )
    profile, original = load_profile(fastest), load_profile(base)
    assert (profile.name, profile.description, profile.gpus_per_node) == ("fastest", "A small node", 2)
    assert profile.gpu == original.gpu.model_copy(update={"memory_bytes": 8e10})
    assert profile.host == original.host
    assert profile.link.uplink_bytes_per_s == 3e10
    assert profile.provenance["gpu.memory_bytes"].source == "fitted"
    assert profile.provenance["gpu.memory_bytes"].note == "inherited from faster, not of this machine"
    assert profile.provenance.keys() == original.provenance.keys() | {"link.uplink_bytes_per_s"}
    assert profile.provenance["gpu.matrix_flops_per_s"].note == "inherited from base, not of this machine"
    assert profile.provenance["gpu.matrix_flops_per_s"].source == "measured"
    assert load_profile(faster).link.uplink_bytes_per_s is None


RATE = "{value: 1e12, unit: B/s, source: assumed}"
ENTRY = "expected {{value: ..., unit: {unit}, source: measured|fitted|datasheet|derived|assumed, note: ...}}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (RATE, "1e12", f":10: gpu.hbm_bytes_per_s: found 1e12, {ENTRY.format(unit='B/s')}"),
        (
            "{value: 8e-6, unit: s, source: assumed}",
            "",
            f":9: gpu.kernel_latency_s: found nothing, {ENTRY.format(unit='s')}",
        ),
        ("{value: 1e12, unit: B/s", "{unit: B/s", ":10: missing key 'gpu.hbm_bytes_per_s.value'"),
        ("{value: 1e12, unit: B/s,", "{value: 1e12,", ":10: missing key 'gpu.hbm_bytes_per_s.unit'"),
        (RATE, "{value: 1e12, unit: B/s}", ":10: missing key 'gpu.hbm_bytes_per_s.source'"),
        (
            RATE,
            "{value: 1e12, unit: B/s, source: guessed}",
            ":10: gpu.hbm_bytes_per_s.source: found 'guessed', "
            "expected 'measured', 'fitted', 'datasheet', 'derived' or 'assumed'",
        ),
        (RATE, RATE.replace("}", ", note: 5}"), ":10: gpu.hbm_bytes_per_s.note: found 5, expected text"),
        (RATE, RATE.replace("}", ", nots: x}"), ":10: unknown key 'nots' in gpu.hbm_bytes_per_s; did you mean 'note'?"),
        ("1e12, unit: B/s", "1000, unit: GB/s", ":10: gpu.hbm_bytes_per_s.unit: found 'GB/s', expected 'B/s'"),
        ("1, unit: 1,", "1, unit: 2,", ":15: host.numa_domains.unit: found 2, expected text"),
        ("1, unit: 1,", "1, unit: s,", ":15: host.numa_domains.unit: found 's', expected '1'"),
        ("value: 1e12", "value: fast", ":10: gpu.hbm_bytes_per_s.value: found 'fast', expected a number"),
        ("value: 1e12", "value: yes", ":10: gpu.hbm_bytes_per_s.value: found yes, expected a number"),
        ("value: 1e12", "value: -1e12", ":10: gpu.hbm_bytes_per_s: found -1e12, expected more than 0"),
        ("value: 1, unit: 1", "value: 1.5, unit: 1", ":15: host.numa_domains: found 1.5, expected a whole number"),
        (
            "value: 0.1, unit: 1",
            "value: 1.1, unit: 1",
            ":36: interconnect.collective_gpu_share: found 1.1, expected at",
        ),
        (
            "hbm_bytes_per_s",
            "hbm_byte_per_s",
            ":10: unknown key 'hbm_byte_per_s' in gpu; did you mean 'hbm_bytes_per_s'?",
        ),
        (
            "  hbm_bytes_per_s: {value: 1e12, unit: B/s, source: assumed}\n",
            "",
            ":5: missing key 'gpu.hbm_bytes_per_s' (rate of element-wise kernels in bytes read plus written)",
        ),
        ("gpu:\n", "gpus:\n", ":5: unknown key 'gpus'; did you mean 'gpu'?"),
        (
            "value: 1e12",
            "value: 1e12, low: 9e11",
            ":10: gpu.hbm_bytes_per_s.low: found 9e11, expected both low and high",
        ),
        (
            "value: 1e12",
            "value: 1e12, low: 2e12, high: 3e12",
            ":10: gpu.hbm_bytes_per_s.value: found 1e12, expected a value between low and high (2e+12 and 3e+12)",
        ),
        ("name: base", "name: other", ":1: name: found 'other', expected 'base', the file's name"),
        ("description: A small node\n", "", ":1: missing key 'description'"),
        ("gpus_per_node: 2\n", "", ":1: missing key 'gpus_per_node'"),
        ("gpus_per_node: 2", "gpus_per_node: yes", ":3: gpus_per_node: found yes, expected a whole number"),
        (
            "validated: false\n",
            "",
            ":1: missing key 'validated' (whether predictions were compared with measured runs: true or false)",
        ),
        ("validated: false", "validated: 0", ":4: validated: found 0, expected true or false"),
        ("host:", "provenance: {}\nhost:", ":13: unknown key 'provenance'; expected one of: description, extends, "),
        (
            "link:\n",
            "link:\n  gpus_per_uplink: {value: 2, unit: 1, source: assumed}\n",
            ":27: link.gpus_per_uplink: found 2, expected 1 where uplink_bytes_per_s is not given",
        ),
    ],
)
def test_what_is_wrong_in_a_profile(base: Path, old: str, new: str, message: str) -> None:
    assert old in BASE
    base.write_text(BASE.replace(old, new, 1))
    assert message_of(lambda: load_profile(base)).startswith(f"{base}{message}")


def test_what_is_wrong_in_an_extension_names_the_right_file(base: Path) -> None:
    child = extending(base, "child", "gpu:\n  memory_bytes: {value: 0, unit: B, source: fitted}\n")
    assert message_of(lambda: load_profile(child)) == f"{child}:5: gpu.memory_bytes: found 0, expected more than 0"
    child.write_text(HEAD.format(name="child", base="base.yaml"))
    base.write_text(BASE.replace("value: 4e10, unit: B,", "value: 0, unit: B,"))
    assert message_of(lambda: load_profile(child)) == f"{base}:6: gpu.memory_bytes: found 0, expected more than 0"


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("dgx-h20", "unknown hardware profile 'dgx-h20'; did you mean 'dgx-h200'?"),
        ("./gone.yaml", "no hardware profile at {folder}/gone.yaml or gone.yaml"),
        ("child.yaml", "extends: found 'child.yaml', expected a profile that does not itself extend this one"),
        ("loop.yaml", "extends: found 'child.yaml', expected a profile that does not itself extend this one"),
    ],
)
def test_what_is_wrong_with_extends(base: Path, extends: str, message: str) -> None:
    child = extending(base, "child", "", extends)
    loop = extending(base, "loop", "", "child.yaml")
    at = loop if extends == "loop.yaml" else child
    assert message_of(lambda: load_profile(child)) == f"{at}:3: {message.format(folder=base.parent)}"


def test_an_unknown_name_in_a_scenario_points_to_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(SCENARIO | {"hardware": "jlse-4xh10"}, sort_keys=False))
    message = f"{path}:1: unknown hardware profile 'jlse-4xh10'; did you mean 'jlse-4xh100'?"
    assert message_of(lambda: scenario_profile(load_scenario(path))) == message
    message = f"override 'hardware=gone.yaml': no hardware profile at {tmp_path / 'gone.yaml'} or gone.yaml"
    assert message_of(lambda: scenario_profile(load_scenario(path, ["hardware=gone.yaml"]))) == message


def test_a_path_is_relative_to_the_scenario_then_to_the_current_folder(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = load_scenario(SCENARIO | {"folder": base.parent})
    assert scenario_profile(scenario).name == "base"
    monkeypatch.chdir(base.parent)
    assert load_profile("base.yaml", relative_to=Path("/")).name == "base"
    assert load_profile("./base.yaml").name == "base"


@pytest.mark.parametrize("name", ["a" * 5000, "a/" + "b" * 5000, "nul\0", "nul\0/x", "..", "/"])
def test_names_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError):
        load_profile(name)


def test_a_profile_is_read_again_only_when_its_files_change(base: Path) -> None:
    child = extending(base, "child", "")
    profile = load_profile(child)
    assert load_profile(child) is profile
    base.write_text(BASE.replace("value: 4e10, unit: B,", "value: 5e10, unit: B,"))
    os.utime(base, ns=(1, 1))
    assert load_profile(child).gpu.memory_bytes == 5e10
    base.unlink()
    with pytest.raises(InputError, match="no hardware profile at"):
        load_profile(child)


def given_values(profile: HardwareProfile) -> dict[str, Any]:
    """Return the values of a profile that are not defaults, by dotted key; words have no provenance."""
    values = profile.model_dump(exclude_unset=True)
    sections = {name: values[name] for name in FIXED_SECTIONS.keys() & values} | values.get("tiers", {})
    return {
        f"{name}.{field}": value
        for name, given in sections.items()
        for field, value in given.items()
        if not isinstance(value, str)
    }


@pytest.mark.parametrize("name", available_profiles())
def test_shipped_profiles_say_where_every_value_comes_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.provenance.keys() == given_values(profile).keys()
    for key, provenance in profile.provenance.items():
        assert len(provenance.note) > 5, key


@pytest.mark.parametrize("name", available_profiles())
def test_shipped_profiles_are_plausible(name: str) -> None:
    profile = load_profile(name)
    gpu, host, link = profile.gpu, profile.host, profile.link
    assert gpu.matrix_flops_per_s < gpu.peak_flops_per_s < 1e16
    assert gpu.reserved_bytes < gpu.memory_bytes < host.memory_bytes
    assert gpu.adam_params_per_s * 28 <= gpu.hbm_bytes_per_s * 1.2
    assert 1e8 < host.adam_params_per_s * 28 <= host.cores_per_rank * 4e10  # what a core may stream
    assert max(link.h2d_bytes_per_s, link.d2h_bytes_per_s) <= link.duplex_bytes_per_s
    assert link.duplex_bytes_per_s <= 1.2 * (link.h2d_bytes_per_s + link.d2h_bytes_per_s)
    assert link.pageable_h2d_bytes_per_s < link.h2d_bytes_per_s
    assert link.pageable_d2h_bytes_per_s < link.d2h_bytes_per_s
    assert host.cores_per_rank <= host.cores


def test_the_module_docs_example_has_the_format_it_describes() -> None:
    from offsim.platform import profiles

    example = re.search(r"^    name:.*\n(?:    .*\n)+", profiles.__doc__ or "", re.MULTILINE)
    assert example
    data = yaml.safe_load(example.group())
    assert data.keys() == {"name", "description", "extends", "gpus_per_node", "validated", "gpu"}
    assert data["gpu"]["memory_bytes"]["unit"] == unit_of("memory_bytes")


def changed(changes: str) -> HardwareProfile:
    return scenario_profile(load_scenario("dos_20b_4xh100", [f"hardware_changes={changes}"]))


def test_a_scenario_changes_values_or_multiplies_them() -> None:
    before = load_profile("jlse-4xh100")
    after = changed("{link: {h2d_bytes_per_s: 1e11, d2h_bytes_per_s: x2}}")
    assert (after.link.h2d_bytes_per_s, after.link.d2h_bytes_per_s) == (1e11, 2 * before.link.d2h_bytes_per_s)
    assert after.name == "jlse-4xh100 with link.h2d_bytes_per_s 1e+11, link.d2h_bytes_per_s x2"
    assert not after.validated
    assert after.provenance["link.h2d_bytes_per_s"].note == "set by the scenario"
    assert after.provenance["link.d2h_bytes_per_s"].note.startswith("x2 by the scenario; DOS runs")
    assert after.gpu == before.gpu
    assert load_profile("jlse-4xh100") == before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ("{lnk: {a: 1}}", "unknown key 'lnk' in hardware_changes; did you mean 'link'?"),
        ("{gpu: {hbm_byte_per_s: 1}}", "unknown key 'hbm_byte_per_s' in hardware_changes.gpu; did you mean 'hbm_byt"),
        (
            "{gpu: {hbm_bytes_per_s: fast}}",
            "hardware_changes.gpu.hbm_bytes_per_s: found 'fast', expected a number, or ",
        ),
        ("{gpu: {hbm_bytes_per_s: -1}}", "gpu.hbm_bytes_per_s: found -1, expected more than 0"),
        ("{gpu: {hbm_bytes_per_s: x-1}}", "gpu.hbm_bytes_per_s: found x-1, expected more than 0"),
        ("{link: {uplink_bytes_per_s: x2}}", "profile 'jlse-4xh100' has no value to multiply"),
    ],
)
def test_what_is_wrong_in_a_scenarios_changes(changes: str, problem: str) -> None:
    assert message_of(lambda: changed(changes)).startswith(f"override 'hardware_changes={changes}': {problem}")


@pytest.mark.parametrize("text", ["5 parsecs", "25GB/s"])
def test_notes_and_errors_are_text_whatever_they_look_like(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    entry = f"{{value: 2e10, unit: B/s, source: assumed, note: {text}, error: {text}}}"
    path.write_text(f"name: own\nextends: jlse-4xh100\nvalidated: false\nlink:\n  h2d_bytes_per_s: {entry}\n")
    known = load_profile(path).provenance["link.h2d_bytes_per_s"]
    assert (known.note, known.error) == (text, text)
