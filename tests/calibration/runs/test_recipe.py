"""offsim calibrate RECIPE.yaml: constants of profiles fitted together, written into the profiles' own text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from offsim.calibration.robust import Interval
from offsim.calibration.runs.fit import correlations, covariance, errors, intervals, predict
from offsim.calibration.runs.plausible import check, value_of
from offsim.calibration.runs.recipe_file import RecipeFile, read_recipe
from offsim.calibration.runs.refit import Refit
from offsim.calibration.runs.write import outputs, profile_text, write_refits
from offsim.cli import main
from offsim.inputs.packaged import packaged_folder
from offsim.platform.profiles import load_profile
from offsim.programs.rank import ADAM_TRAFFIC, SCALE_TRAFFIC
from offsim.validation import predictions
from offsim.validation.table import TIMES, read_runs
from tests.calibration.synthetic_runs import BASE, runs_table

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
  update_start_s: {{value: 0.05, unit: s, source: assumed}}
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

    assert sorted(path.name for path in out.iterdir()) == ["held_out.json", "own.yaml"]
    profile = load_profile(out / "own.yaml")
    for section, fields in TRUTH.items():
        for field, truth in fields.items():
            known = profile.provenance[f"{section}.{field}"]
            assert known.low is not None
            assert known.high is not None
            assert known.low <= truth <= known.high
            assert known.source == "fitted"
    assert profile.host.module_launch_s == pytest.approx(TRUTH["host"]["module_launch_s"], rel=0.02)
    assert profile.host.scale_params_per_s == pytest.approx(3.5 * profile.host.adam_params_per_s, rel=1e-3)
    assert profile.provenance["host.module_launch_s"].note == 'a "guess" {of ours}'
    assert profile.correlations["host.adam_params_per_s", "host.scale_params_per_s"] == 1
    assert len(profile.correlations) == 5 * 4 / 2 + 12 * 11 / 2  # and those of 12 values that it inherits

    lines = (out / "own.yaml").read_text().splitlines()
    kept = [line for line in OWN.splitlines() if "module_launch_s" not in line]
    assert [line for line in lines if line in kept] == kept
    (launch,) = (line for line in lines if "  module_launch_s" in line)
    assert launch.startswith("  module_launch_s: {value: ")
    assert launch.endswith('note: "a \\"guess\\" {of ours}"}  # as {ever}')

    held_out = json.loads((out / "held_out.json").read_text())
    assert held_out["own"].keys() == {"zero3_offload", "zero3_offload_async_grads"}
    for phases in held_out["own"].values():
        assert phases["sum"]["n"] == 4
        assert 0 <= phases["sum"]["median"] <= phases["sum"]["p90"] <= phases["sum"]["worst"] < 5


def test_the_folder_of_the_profiles_may_be_written_to_and_keeps_what_others_left_there(
    ours: Path, tmp_path: Path
) -> None:
    for path in ours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "held_out.json").write_text('{"other": {}}')
    for start in (6e-3, 5e-3):  # what is written is read again
        file = read_recipe(tmp_path / "ours.yaml")
        found = {c.name: Interval(start, start / 2, start * 2) for c in file.recipe.constants}
        table = errors(file.data, file.profiles)
        together = {"own": {"host.module_launch_s": [], "link.pageable_d2h_bytes_per_s": [start * 100]}}
        write_refits([Refit(file, found, together, table, {"group": table})], tmp_path)
        profile = load_profile(tmp_path / "own.yaml")
        pair = ("host.module_launch_s", "link.pageable_d2h_bytes_per_s")
        assert profile.correlations[pair] == pytest.approx(start * 100)
        known = profile.provenance["host.module_launch_s"]
        assert (profile.host.module_launch_s, known.low, known.high) == (start, start / 2, start * 2)
        assert known.error.startswith("median forward ")
        assert json.loads((tmp_path / "held_out.json").read_text()).keys() == {"other", "own"}
    # two more values of the host, two new sections of a value each, and one of two values' correlations
    assert len((tmp_path / "own.yaml").read_text().splitlines()) == len(OWN.splitlines()) + 2 + 2 * 3 + 4


def test_inherited_constants_stay_inherited_wherever_the_profiles_go(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace(BASE, BASE + "  # the nearest"))
    (tmp_path / "bound.yaml").write_text(BOUND.replace("extends: own", "extends: own.yaml  # same cores"))
    file = read_recipe(ours / "ours.yaml")
    files = {name: tmp_path / f"{name}.yaml" for name in ("own", "bound")}
    profiles = {name: load_profile(path) for name, path in files.items()}
    constants = [
        type(constant)(
            constant.name,
            constant.start,
            constant.spread,
            tuple((name, field, factor) for name in files for _, field, factor in constant.targets),
        )
        for constant in file.recipe.constants
    ]
    both = RecipeFile(type(file.recipe)("both", tuple(files), tuple(constants)), profiles, files, file.data, "model")
    found = {constant.name: Interval(constant.start, 0.9 * constant.start, 2e10) for constant in constants}
    away = tmp_path / "away"
    away.mkdir()
    for name in files:
        (away / f"{name}.yaml").write_text(profile_text(both, name, found, {}, "", away))
    text = (away / "bound.yaml").read_text()
    assert 'extends: "own.yaml"  # same cores\n' in text
    assert "extends: jlse-4xh100  # the nearest\n" in (away / "own.yaml").read_text()
    assert "module_launch_s" not in text
    refitted = load_profile(away / "bound.yaml")
    assert refitted.host.module_launch_s == 4e-3
    assert refitted.link.pageable_d2h_bytes_per_s == 3.3e9
    assert refitted.provenance["link.pageable_d2h_bytes_per_s"].low == pytest.approx(0.9 * 3.3e9)
    # in place, what a profile extends stays as it is written
    assert "extends: own.yaml  # same cores\n" in profile_text(both, "bound", found, {}, "", tmp_path)


def test_intervals_are_as_wide_as_plausible_where_runs_tell_nothing(file: RecipeFile) -> None:
    starts = {constant.name: constant.start for constant in file.recipe.constants}
    covariances = covariance(file.recipe, starts, file.data, file.profiles)
    found = intervals(file.recipe, starts, covariances)
    nic = found["interconnect.nic_bytes_per_s (own)"]  # one node: nothing goes over the network
    assert (nic.low, nic.high) == pytest.approx((1e10 / np.exp(1.96 * 0.4), 1e10 * np.exp(1.96 * 0.4)))
    launch = found["host.module_launch_s (own)"]
    assert launch.spread < 1.2
    triangle = correlations(file.recipe, covariances, "own")
    assert [len(row) for row in triangle.values()] == [0, 1, 2, 3, 4]
    assert triangle["interconnect.nic_bytes_per_s"] == pytest.approx([0] * 4)
    assert triangle["host.scale_params_per_s"][1] == pytest.approx(1)  # one constant with Adam's rate
    assert triangle["link.pageable_d2h_bytes_per_s"][1:] == pytest.approx(
        [triangle["link.pageable_d2h_bytes_per_s"][1]] * 2
    )


def test_what_runs_tell_adds_up(file: RecipeFile) -> None:
    starts = {constant.name: constant.start for constant in file.recipe.constants}
    prior = np.eye(len(starts))
    once, twice = (
        np.linalg.inv(covariance(file.recipe, starts, data, file.profiles)) - prior
        for data in (file.data, [*file.data, *file.data])
    )
    assert twice == pytest.approx(2 * once)


def test_the_fit_predicts_what_is_validated(ours: Path) -> None:
    run = read_runs(ours / "runs.csv").runs[0]
    validated = predictions.predict(run).values
    assert predict(run, load_profile(ours / "own.yaml")) == pytest.approx([validated[name] / 1e3 for name in TIMES])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_can_be_carried_out(path: Path) -> None:
    file = read_recipe(path)
    assert file.recipe.name == path.stem
    assert {path.name for path in outputs([file], path.parent.parent)} >= {"held_out.json"}
    for constant in file.recipe.constants:
        factors = {field: factor for _, field, factor in constant.targets}
        if len(factors) > 1:
            assert factors == {"host.adam_params_per_s": 1, "host.scale_params_per_s": ADAM_TRAFFIC / SCALE_TRAFFIC}
        for name, field, factor in constant.targets:
            profile = file.profiles[name]
            check(profile, field, factor * constant.start, path.name)
            known = profile.provenance[field]
            value = value_of(profile, field)
            assert known.source == "fitted"
            assert known.low is not None
            assert known.high is not None
            assert value is not None
            assert known.low < value < known.high
    for name, profile in file.profiles.items():
        fitted = {field for constant in file.recipe.constants for of, field, _ in constant.targets if of == name}
        assert profile.correlations.keys() == {(a, b) for a in fitted for b in fitted if a < b}


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
    ("leave_out: scheduler\n", "", 1, "missing key 'leave_out' (the column whose values are left out one by one)"),
    (
        "host.module_launch_s",
        "host.module_launchs",
        6,
        "unknown value 'host.module_launchs' of a profile; did you",
    ),
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
    (
        "  - {field: host.module_launch_s",
        "  - 3\n  - {field: host.module_launch_s",
        6,
        "constants.0: found 3, expected",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "problem"), BAD, ids=[f"{new[:30]}" for _, new, _, _ in BAD])
def test_a_bad_recipe_is_one_message_with_its_line(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, line: int, problem: str
) -> None:
    assert old in RECIPE
    (tmp_path / "own.yaml").write_text(OWN)
    text = (ours / "runs.csv").read_text()
    rows = text.splitlines()
    (tmp_path / "runs.csv").write_text("\n".join([*rows, rows[1].replace("own.yaml", BASE), ""]))
    recipe = tmp_path / "ours.yaml"
    recipe.write_text(RECIPE.replace(old, new, 1))
    assert main(["calibrate", str(recipe), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {recipe}:{line}: {problem}" if "found '" not in problem else f"Error: {recipe}:")
    assert problem in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["ours.yaml", "runs.csv", "--out", "x"],
            "runs.csv: found measurements beside a recipe, expected recipes alone",
        ),
        (["ours.yaml", "--out", "x", "--base", BASE], f"--base: found {BASE}, expected no such option with a recipe"),
        (["ours.yaml", "--out", "x", "--holdout", "0"], "--holdout: found 0.0, expected no such option with a recipe"),
        (["ours.yaml", "--out", "x.yaml"], "--out 'x.yaml': found a file's name, expected a folder for the profiles"),
        (["ours.yaml", "--out", "runs.csv"], "--out 'runs.csv': found a file's name, expected a folder for the"),
        (["ours.yaml", "--out", "x/y"], "--out 'x/y': found the missing folder 'x', expected a folder"),
        (["ours.yaml", "ours.yaml", "--out", "x"], "recipe ours: found own again, expected each profile in one recipe"),
        (["absent.yaml", "--out", "x"], "absent.yaml: no such file"),
        (["ours.yaml", "--out", "bad"], "bad/held_out.json: cannot be read: "),
    ],
)
def test_what_a_recipe_cannot_be_asked_for(
    ours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    for path in ours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    Path("bad").mkdir()
    Path("bad/held_out.json").write_text("{")
    assert main(["calibrate", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {problem}")
    assert message.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (
            "host:\n  module_launch_s:\n    value: 4e-3\n    unit: s\n    source: assumed\n",
            6,
            "host.module_launch_s: found an entry of another form, expected one line '  module_launch_s: {value: ...}'",
        ),
        (
            "host: {update_start_s: {value: 0, unit: s, source: assumed}}\n",
            5,
            "host: found a section of another form, expected one entry a line",
        ),
        ("correlations: {}\n", 5, "correlations: found a section of another form, expected one value a line"),
    ],
)
def test_a_profile_of_another_form_is_refused_before_the_fit(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: int, problem: str
) -> None:
    for path in ours.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "own.yaml").write_text(f"name: own\nextends: {BASE}\nvalidated: true\n\n{text}")
    assert main(["calibrate", str(tmp_path / "ours.yaml"), "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == f"Error: {tmp_path / 'own.yaml'}:{line}: {problem}\n"
