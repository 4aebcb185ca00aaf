"""What a user installs holds what the source tree holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from offsim.inputs.packaged import packaged_files, packaged_folder

ROOT = Path(__file__).parent.parent

LIST_INSTALLED = """
import sys
from pathlib import Path

target = sys.argv[1]
sys.path.insert(0, target)

import offsim
from offsim.platform.profiles import available_profiles, load_profile
from offsim.scenario import available_scenarios, load_scenario

assert Path(offsim.__file__).is_relative_to(target), offsim.__file__
for name, path in available_profiles().items():
    assert path.is_relative_to(target), path
    print("profile", load_profile(name).name)
for name, path in available_scenarios().items():
    assert path.is_relative_to(target), path
    print("scenario", name, load_scenario(name) and "")
for path in Path(target, "offsim").rglob("*"):
    if path.is_file() and path.suffix not in (".py", ".pyc") and "_data" not in path.parts:
        print("file", path.relative_to(target).as_posix())
"""


def python(*arguments: str, folder: Path) -> str:
    """Run Python in another folder, so that the source tree is not found by chance."""
    run = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr or run.stdout
    return run.stdout


@pytest.mark.slow
def test_the_wheel_finds_its_profiles_scenarios_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet")
    python(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path), folder=tmp_path)
    (wheel,) = tmp_path.glob("offsim-*.whl")
    target = tmp_path / "installed"
    python(*pip, "install", str(wheel), "--no-deps", "--no-index", "--target", str(target), folder=tmp_path)

    found = {line.strip() for line in python("-c", LIST_INSTALLED, str(target), folder=tmp_path).splitlines()}
    files = [path for path in (ROOT / "offsim").rglob("*.*") if path.suffix != ".py"]
    files = [path for path in files if "__pycache__" not in path.parts]
    expected = {f"profile {name}" for name in packaged_files("hardware_profiles")}
    expected |= {f"scenario {name}" for name in packaged_files("scenarios")}
    expected |= {f"file {path.relative_to(ROOT).as_posix()}" for path in files}
    assert found == expected
    (metadata,) = target.glob("offsim-*.dist-info/METADATA")
    readme = metadata.read_text(encoding="utf-8")
    assert "# offsim" in readme
    assert re.findall(r"\]\((?!https:)", readme) == []


@pytest.mark.parametrize("folder", ["hardware_profiles", "scenarios"])
def test_the_source_tree_is_used_where_nothing_is_installed(folder: str) -> None:
    if packaged_folder(folder) != ROOT / folder:
        pytest.skip("tests run against an installed package")
    assert packaged_files(folder).keys() == {path.stem for path in (ROOT / folder).glob("*.yaml")}


def modules_imported_by(source: str, *, later: bool) -> set[str]:
    """Return the top-level packages that a module imports as it is imported itself, or also `later`."""
    tree = ast.parse(source)
    names: set[str] = set()
    for statement in ast.walk(tree) if later else tree.body:
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
            names.add(statement.module)
    return {name.split(".")[0] for name in names}


def test_what_offsim_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    extras = {group: {re.split(r"[<>=~!; ]", each)[0].lower() for each in each_of} for group, each_of in groups.items()}
    declared = extras.pop("dependencies")
    comes_as = {"yaml": "pyyaml", "pydantic_core": "pydantic", "ruamel": "ruamel.yaml"}
    known = sys.stdlib_module_names | {"offsim"}
    for path in sorted((ROOT / "offsim").rglob("*.py")):
        optional = {*extras["calibrate"], *extras["harness"]} if "calibration" in path.parts else set()
        optional |= extras["fast"] if "tape" in path.parts else set()
        for later, allowed in ((False, declared | optional), (True, declared.union(*extras.values()))):
            needed = {comes_as.get(name, name) for name in modules_imported_by(path.read_text(), later=later) - known}
            assert needed <= allowed, path
