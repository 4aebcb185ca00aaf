"""offsim calibrate RECIPE.yaml: constants of profiles fitted together, written into the profiles' own text."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offsim.calibration.profile_text import ProfileValue, parsed, put, text_of
from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import STANDARD_ERRORS, Point, intervals, predict, residuals
from offsim.calibration.runs.plausible import check, value_of
from offsim.calibration.runs.recipe_file import RecipeFile, read_recipe
from offsim.calibration.runs.refit import Refit, outputs, profile_text, write_refits
from offsim.cli import main
from offsim.inputs.packaged import packaged_folder
from offsim.platform.profiles import available_profiles, load_profile
from offsim.programs.rank import ADAM_TRAFFIC, SCALE_TRAFFIC
from offsim.programs.recording import TapedRun
from offsim.results import machines
from offsim.results.simulate import simulate
from offsim.validation import predictions
from offsim.validation.run_table import TIMES
from tests.calibration.synthetic_runs import BASE, LIKE_THEM, SCENARIO, runs_table
from tests.conftest import Complaint

RECIPES = packaged_folder("hardware_profiles") / "recipes"

TRUTH = {
    "host": {"module_launch_s": 5e-3, "adam_params_per_s": 6.2e9, "scale_params_per_s": 3.5 * 6.2e9},
    "link": {"pageable_d2h_bytes_per_s": 2.9e9},
}

OWN = f"""\
# a machine of ours
name: own
extends: {BASE}
validated: true   # by the runs
host:             # two sockets
  # hooks
  module_launch_s: {{value: 4e-3, unit: s, source: assumed, note: "a \\"guess\\" {{of ours}}"}}  # as {{ever}}
  update_start_s: {{value: {load_profile(BASE).host.update_start_s}, unit: s, source: assumed}}
"""
BOUND = """\
name: bound
extends: own
validated: true
link:
  pageable_d2h_bytes_per_s: {value: 3e9, unit: B/s, source: assumed}
"""
RECIPE = f"""\
name: ours
runs: runs.csv
profiles: [own.yaml, {BASE}]
leave_out: scheduler
constants:
  - {{field: host.module_launch_s, start: 4e-3, spread: 0.5, profiles: [own]}}
  - {{field: host.adam_params_per_s, also: {{host.scale_params_per_s: 3.5}}, start: 7e9, spread: 0.3, profiles: [own]}}
  - {{field: link.pageable_d2h_bytes_per_s, start: 3.3e9, spread: 0.5, profiles: [own]}}
  - {{field: interconnect.nic_bytes_per_s, start: 1e10, spread: 0.4, profiles: [own]}}
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a profile, runs of the machine it is of, and a recipe."""
    folder = tmp_path_factory.mktemp("ours")
    (folder / "own.yaml").write_text(OWN)
    runs_table(folder / "runs.csv", "own.yaml", TRUTH)
    (folder / "ours.yaml").write_text(RECIPE.replace(f", {BASE}]", "]"))
    return folder


@pytest.fixture(scope="module")
def file(ours: Path) -> RecipeFile:
    return read_recipe(ours / "ours.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_fit_predicts_as_the_engine_does_on_every_machine(file: RecipeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_loop_pays", lambda many: many)
    tried = [file.profiles["own"].with_values({"link": {"d2h_bytes_per_s": rate}}) for rate in (8e9, 4e10, 8e9)]
    for point in file.data:
        for profile in tried:
            values = predictions.predict(point.run, profile).values
            assert predict(point, profile) == pytest.approx([values[column] / 1e3 for column in TIMES], rel=1e-12)
        assert isinstance(point.machines.on(tried[0]), TapedRun)


def test_known_constants_are_found_and_written_beside_the_comments(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(ours), contents(packaged_folder("hardware_profiles"))
    out = tmp_path / "refitted"
    assert main(["calibrate", str(ours / "ours.yaml"), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert max(map(len, printed.out.splitlines())) <= 80
    assert "8 fitted" in printed.out
    assert "4 zero3_offload left out" in printed.out
    assert printed.err.count("ours: cost") == 3
    assert (contents(ours), contents(packaged_folder("hardware_profiles"))) == before

    assert sorted(path.name for path in out.iterdir()) == ["held_out.json", "measured.json", "own.yaml"]
    profile = load_profile(out / "own.yaml")
    for section, fields in TRUTH.items():
        for field, truth in fields.items():
            known = profile.provenance[f"{section}.{field}"]
            assert known.low <= truth <= known.high
            assert known.source == "fitted"
    assert profile.host.module_launch_s == pytest.approx(TRUTH["host"]["module_launch_s"], rel=0.02)
    assert profile.host.scale_params_per_s == pytest.approx(3.5 * profile.host.adam_params_per_s, rel=1e-3)
    assert profile.provenance["host.module_launch_s"].note == 'a "guess" {of ours}'

    lines = (out / "own.yaml").read_text().splitlines()
    kept = [line for line in OWN.splitlines() if "module_launch_s" not in line]
    assert [line for line in lines if line in kept] == kept
    (launch,) = (line for line in lines if "  module_launch_s" in line)
    assert launch.startswith("  module_launch_s: {value: ")
    assert launch.endswith('note: "a \\"guess\\" {of ours}"} # as {ever}')

    held_out = json.loads((out / "held_out.json").read_text())
    assert held_out["own"].keys() == {"zero3_offload", "zero3_offload_async_grads"}
    for phases in held_out["own"].values():
        assert phases["sum"]["n"] == 4
        assert 0 <= phases["sum"]["median"] <= phases["sum"]["p90"] <= phases["sum"]["worst"] < 5
        assert phases.keys() == {"forward", "backward", "update", "sum"}
        for score in phases.values():
            farthest = max(abs(math.expm1(-residual)) for residual in score["residuals"])
            assert len(score["residuals"]) == 4
            assert 100 * farthest == pytest.approx(score["worst"], abs=0.01)
    assert simulate(SCENARIO, [f"hardware={out / 'own.yaml'}", *LIKE_THEM]).interval.runs == 8  # type: ignore[union-attr]


def test_the_folder_of_the_profiles_may_be_written_to_and_keeps_what_others_left_there(
    ours: Path, tmp_path: Path
) -> None:
    shutil.copytree(ours, tmp_path, dirs_exist_ok=True)
    (tmp_path / "held_out.json").write_text('{"other": {}}')
    for start in (6e-3, 5e-3):  # what is written is read again
        file = read_recipe(tmp_path / "ours.yaml")
        found = {c.name: Interval(start, start / 2, start * 2) for c in file.recipe.constants}
        table = residuals(file.data, file.profiles)
        write_refits([Refit(file, found, table, {"group": table})], tmp_path)
        profile = load_profile(tmp_path / "own.yaml")
        known = profile.provenance["host.module_launch_s"]
        assert (profile.host.module_launch_s, known.low, known.high) == (start, start / 2, start * 2)
        assert known.error.startswith("median forward ")
        assert json.loads((tmp_path / "held_out.json").read_text()).keys() == {"other", "own"}
    # two more values of the host, and two new sections of a value each
    assert len((tmp_path / "own.yaml").read_text().splitlines()) == len(OWN.splitlines()) + 2 + 2 * 3


def test_inherited_constants_stay_inherited_wherever_the_profiles_go(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace(BASE, BASE + "  # the nearest"))
    (tmp_path / "bound.yaml").write_text(BOUND.replace("extends: own", "extends: own.yaml  # same cores"))
    file = read_recipe(ours / "ours.yaml")
    files = {name: tmp_path / f"{name}.yaml" for name in ("own", "bound")}
    profiles = {name: load_profile(path) for name, path in files.items()}
    constants = [
        replace(one, targets=tuple((name, field, factor) for name in files for _, field, factor in one.targets))
        for one in file.recipe.constants
    ]
    recipe = replace(file.recipe, name="both", constants=tuple(constants))
    both = replace(file, recipe=recipe, profiles=profiles, files=files, groups={}, further={})
    found = {constant.name: Interval(constant.start, 0.9 * constant.start, 2e10) for constant in constants}
    away = tmp_path / "away"
    away.mkdir()
    for name in files:
        (away / f"{name}.yaml").write_text(profile_text(both, name, found, "", away))
    text = (away / "bound.yaml").read_text()
    assert 'extends: "own.yaml" # same cores\n' in text
    assert "extends: jlse-4xh100  # the nearest\n" in (away / "own.yaml").read_text()
    assert "module_launch_s" not in text
    refitted = load_profile(away / "bound.yaml")
    assert refitted.host.module_launch_s == 4e-3
    assert refitted.link.pageable_d2h_bytes_per_s == 3.3e9
    assert refitted.provenance["link.pageable_d2h_bytes_per_s"].low == pytest.approx(0.9 * 3.3e9)
    # in place, what a profile extends stays as it is written
    assert "extends: own.yaml  # same cores\n" in profile_text(both, "bound", found, "", tmp_path)


def test_further_groups_are_left_out_besides_the_values_of_a_column() -> None:
    file = read_recipe(RECIPES / "polaris.yaml")
    assert list(file.groups) == ["13B", "7B"]  # all runs of 30B are in the further group
    (further,) = file.further.values()
    assert {point.run.cell("table") for point in further} == {"parallel_runs.csv"}
    assert len(further) == 11
    assert len({point.run.line for group in (*file.groups.values(), further) for point in group}) == len(file.data)


def test_intervals_are_as_wide_as_plausible_where_runs_tell_nothing(file: RecipeFile) -> None:
    starts = {constant.name: constant.start for constant in file.recipe.constants}
    found = intervals(file.recipe, starts, file.data, file.profiles)
    nic = found["interconnect.nic_bytes_per_s (own)"]  # one node: nothing goes over the network
    assert (nic.low, nic.high) == pytest.approx((1e10 / np.exp(1.96 * 0.4), 1e10 * np.exp(1.96 * 0.4)))
    launch = found["host.module_launch_s (own)"]
    assert launch.spread < 1.2


def test_what_runs_determine_adds_up(file: RecipeFile) -> None:
    alone = replace(file.recipe, constants=file.recipe.constants[:1])
    (launch,) = alone.constants
    starts = {launch.name: launch.start}

    def information(data: Sequence[Point]) -> float:
        interval = intervals(alone, starts, data, file.profiles)[launch.name]
        return (STANDARD_ERRORS * launch.spread / math.log(interval.high / interval.value)) ** 2 - 1

    assert information([*file.data, *file.data]) == pytest.approx(2 * information(file.data))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_can_be_carried_out(path: Path) -> None:
    file = read_recipe(path)
    assert file.recipe.name == path.stem
    assert {path.name for path in outputs([file], path.parent.parent)} >= {"held_out.json"}
    for constant in file.recipe.constants:
        factors = {field: factor for _, field, factor in constant.targets}
        if "host.scale_params_per_s" in factors:
            assert factors == {"host.adam_params_per_s": 1, "host.scale_params_per_s": ADAM_TRAFFIC / SCALE_TRAFFIC}
        for name, field, factor in constant.targets:
            profile = file.profiles[name]
            check(profile, field, factor * constant.start, path.name)
            known = profile.provenance[field]
            value = value_of(profile, field)
            assert known.source == "fitted"
            assert known.low < value < known.high


@pytest.mark.parametrize("name", available_profiles())
def test_a_refit_of_a_shipped_profile_changes_fitted_values_only(name: str) -> None:
    path = available_profiles()[name]
    text = path.read_text(encoding="utf-8")
    document = parsed(path)
    assert text_of(document) == text
    profile = load_profile(name)
    own = [f"{section}.{key}" for section, entries in document.items() if isinstance(entries, dict) for key in entries]
    origins = {field: profile.provenance[field] for field in own if field in profile.provenance}
    fitted = [field for field, origin in origins.items() if origin.source == "fitted" and origin.low]
    for field in fitted:
        put(document, field, ProfileValue(1.0, 0.5, 2.0, "fitted", "median"))
    old, new = text.splitlines(), text_of(document).splitlines()
    changed = [(before, after) for before, after in zip(old, new, strict=True) if before != after]
    assert len(changed) == len(fitted)
    for before, after in changed:
        kept = re.sub(r"(value|low|high): [^,]*", r"\1", before)
        assert re.sub(r'error: "[^"]*"', 'error: "median"', kept) == re.sub(r"(value|low|high): [^,]*", r"\1", after)


def test_entries_of_any_form_are_edited_in_place(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nhost:\n  # hooks\n"
        "  module_launch_s:\n    value: 4e-3  # a guess\n    unit: s\n    source: assumed\n"
        "link: {copy_latency_s: {value: 0, unit: s, source: assumed}}\ngpu:\n"
        "  adam_params_per_s: {value: 1e9, unit: params/s, source: assumed} # of HBM\n\n# the rest\nvalidated: false\n"
    )
    document = parsed(path)
    for field in ("host.module_launch_s", "link.copy_latency_s", "gpu.kernel_latency_s"):
        put(document, field, ProfileValue(5e-3, 4e-3, 6e-3, "fitted", "small", 'of "runs"'))
    entry = '{value: 0.005, low: 0.004, high: 0.006, unit: s, source: fitted, error: "small", note: "of \\"runs\\""}'
    assert text_of(document) == (
        "name: own\nhost:\n  # hooks\n  module_launch_s:\n    value: 0.005 # a guess\n    low: 0.004\n    high: 0.006\n"
        '    unit: s\n    source: fitted\n    error: "small"\n    note: "of \\"runs\\""\n'
        f"link: {{copy_latency_s: {entry}}}\ngpu:\n"
        "  adam_params_per_s: {value: 1e9, unit: params/s, source: assumed} # of HBM\n"
        f"  kernel_latency_s: {entry}\n\n# the rest\nvalidated: false\n"
    )


BAD = [
    ("name: ours\n", "", 1, "missing key 'name' (the recipe's)"),
    ("runs: runs.csv", "run: runs.csv", 2, "unknown key 'run'; did you mean 'runs'?"),
    ("[own.yaml, ", "[own.yam, ", 3, "unknown hardware profile 'own.yam'; expected one of: "),
    ("[own.yaml, ", "[owned.yaml, ", 3, "no hardware profile at "),
    (f", {BASE}]", ", own.yaml]", 3, "profiles.1: found 'own.yaml', expected each profile once"),
    (f", {BASE}]", ", gh200]", 3, "profiles: found no run on gh200 with times of all phases in "),
    (f"[own.yaml, {BASE}]", "[]", 3, "profiles: found a list, expected the names of the profiles to fit"),
    ("leave_out: scheduler", "leave_out: modell", 4, "unknown column 'modell' of "),
    ("leave_out: scheduler", "leave_out: model", 4, "leave_out: found one 'model' in the runs, expected several to"),
    ("leave_out: scheduler", "leave_out: scheduler\nleave_out_too: {far: {node: x}}", 5, "unknown column 'node' of "),
    (
        "leave_out: scheduler",
        "leave_out: scheduler\nleave_out_too: {far: {nodes: none}}",
        5,
        "leave_out_too.far: found",
    ),
    ("leave_out: scheduler\n", "", 1, "missing key 'leave_out' (the column whose values are left out one by one)"),
    ("host.module_launch_s", "host.module_launchs", 6, "unknown value 'host.module_launchs' of a profile; did you"),
    ("host.module_launch_s", "host.cores", 6, "unknown value 'host.cores' of a profile; "),
    ("host.scale_params_per_s: 3.5", "host.scale: 3.5", 7, "unknown value 'host.scale' of a profile; "),
    ("host.scale_params_per_s: 3.5", "host.scale_params_per_s: x", 7, "found 'x', expected a number"),
    ("start: 4e-3", "start: -4e-3", 6, "constants.0.start: found -4e-3, expected more than 0"),
    ("start: 4e-3", "begin: 4e-3", 6, "unknown key 'begin' in constants.0; expected one of: also, field, most, "),
    ("spread: 0.5", "spread: 0", 6, "constants.0.spread: found 0, expected more than 0"),
    ("spread: 0.5", "spread: .inf", 6, "found .inf, expected a finite number"),
    ("spread: 0.5", "most: 3e-3, spread: 0.5", 6, "constants.0.most: found 3e-3, expected at least the start (0.004)"),
    ("profiles: [own]", "profiles: [owl]", 6, "unknown profile 'owl' of the recipe; did you mean 'own'?"),
    ("link.pageable_d2h_bytes_per_s", "host.scale_params_per_s", 8, "found host.scale_params_per_s of own again; the"),
    ("constants:\n", "constants:\n  - 3\n", 6, "constants.0: found 3, expected"),
]


@pytest.mark.parametrize(("old", "new", "line", "problem"), BAD, ids=[f"{new[:30]}" for _, new, _, _ in BAD])
def test_a_bad_recipe_is_one_message_with_its_line(
    ours: Path, tmp_path: Path, complaint: Complaint, old: str, new: str, line: int, problem: str
) -> None:
    assert old in RECIPE
    (tmp_path / "own.yaml").write_text(OWN)
    text = (ours / "runs.csv").read_text()
    rows = text.splitlines()
    (tmp_path / "runs.csv").write_text("\n".join([*rows, rows[1].replace("own.yaml", BASE), ""]))
    recipe = tmp_path / "ours.yaml"
    recipe.write_text(RECIPE.replace(old, new, 1))
    message = complaint("calibrate", recipe, "--out", tmp_path / "out")
    assert message.startswith(f"{recipe}:{line}: {problem}" if "found '" not in problem else f"{recipe}:")
    assert problem in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ours.yaml", "runs.csv", "--out", "x"], "runs.csv: found measurements together with a recipe, expected"),
        (["ours.yaml", "--out", "x", "--base", BASE], f"--base: found {BASE}, expected no such option with a recipe"),
        (["ours.yaml", "--out", "x", "--set", "host.cores=8"], "--set: found host.cores=8, expected no such option"),
        (["ours.yaml", "--out", "x", "--holdout", "0"], "--holdout: found 0.0, expected no such option with a recipe"),
        (["ours.yaml", "--out", "x.yaml"], "--out 'x.yaml': found a file's name, expected a folder for the profiles"),
        (["ours.yaml", "--out", "runs.csv"], "--out 'runs.csv': found a file's name, expected a folder for the"),
        (["ours.yaml", "--out", "x/y"], "--out 'x/y': found the missing folder 'x', expected a folder"),
        (["ours.yaml", "ours.yaml", "--out", "x"], "recipe ours: found own again, expected each profile in one recipe"),
        (["absent.yaml", "--out", "x"], "absent.yaml: no such file"),
        (["ours.yaml", "--out", "bad"], "bad/held_out.json: Invalid JSON: "),
    ],
)
def test_what_a_recipe_cannot_be_asked_for(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: Complaint, arguments: list[str], told: str
) -> None:
    shutil.copytree(ours, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("bad").mkdir()
    Path("bad/held_out.json").write_text("{")
    assert complaint("calibrate", *arguments).startswith(told)
    assert not Path("x").exists()
