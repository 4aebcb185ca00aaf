"""Every snippet and command of the README and the docs runs."""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from offsim.cli import main
from offsim.scenario import load_scenario
from offsim.schedulers import registry
from offsim.validation.table import SHIPPED_RUNS
from tests.calibration.synthetic_logs import whole_log
from tests.calibration.synthetic_measurements import harness_folder
from tests.calibration.synthetic_runs import runs_table
from tests.calibration.synthetic_traces import training
from tests.calibration.trace_files import write_kineto
from tests.imports.files import write as write_configurations

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """The `offsim ...` commands in the text of a page."""
    return re.findall(r"`(offsim [a-z][^`]*)`", page.read_text(encoding="utf-8"))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with what the commands expect beside them."""
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    shutil.copy(SHIPPED_RUNS, tmp_path / "runs.csv")
    write_kineto(tmp_path / "trace.json.gz")
    write_kineto(tmp_path / "training_trace.json.gz", training())
    (tmp_path / "train.log").write_text("\n".join(whole_log()) + "\n")
    harness_folder(tmp_path / "harness")
    runs_table(tmp_path / "mine.csv")
    write_configurations(tmp_path)
    shutil.copy(ROOT / "scenarios" / "dos_20b_4xh100.yaml", tmp_path / "my_run.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "BUILT_IN", dict(registry.BUILT_IN))
    return tmp_path


def test_the_readme_has_two_shell_blocks_of_one_command_line_each():
    shell = blocks(README, "bash")
    assert [block.count("\n") for block in shell] == [1, 1]
    for other in ("sh", "shell", "console", "zsh"):
        assert not blocks(README, other)


def test_the_readmes_first_command_is_what_the_command_line_takes(workplace):
    offsim = blocks(README, "bash")[0].split(".venv/bin/offsim ")[1]
    assert main(shlex.split(offsim)) == 0
    assert (workplace / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page in PAGES for command in commands(page)],
    ids=lambda part: str(part)[-60:],
)
def test_commands_run(page, command, workplace, capsys):
    arguments = shlex.split(command)[1:]
    if "FILE" in arguments:
        arguments[arguments.index("FILE")] = "runs.csv"
    if arguments in (["compare"], ["run"]):  # named, not shown
        arguments.append("scenarios/dos_20b_4xh100.yaml")
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_snippets_run(page, workplace):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_data_snippets_are_valid(page):
    for block in blocks(page, "yaml"):
        load_scenario(yaml.safe_load(block))
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
def test_continuous_integration_runs_the_readmes_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "block 1" in script
    assert "block 2" in script
