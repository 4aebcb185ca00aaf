"""Every snippet and command of the README and the docs runs."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from offsim.activations import registry as activation_rules
from offsim.cli import main
from offsim.results.simulate import simulate
from offsim.schedulers import registry
from offsim.validation.run_table import SHIPPED_RUNS
from tests.calibration.synthetic_logs import whole_log
from tests.calibration.synthetic_measurements import harness_folder
from tests.calibration.synthetic_runs import runs_table
from tests.calibration.synthetic_traces import training
from tests.calibration.trace_files import write_kineto
from tests.imports.files import write as write_configurations
from tests.imports.files import write_huggingface

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
WRITES = ("--plot", "--trace", "--html", "--json", "--csv", "--report", "--out", "--emit-scenario")
"""Options that name a file or a folder to write."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


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
    write_huggingface(tmp_path)
    shutil.copy(ROOT / "scenarios" / "dos_20b_4xh100.yaml", tmp_path / "my_run.yaml")
    monkeypatch.chdir(tmp_path)
    for each in (registry, activation_rules):
        monkeypatch.setattr(each, "BUILT_IN", dict(each.BUILT_IN))
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
    for option, written in pairwise(arguments):
        if option in WRITES:
            assert (workplace / written).exists(), written


@pytest.mark.parametrize(
    "command", [line for page in PAGES for line in "".join(blocks(page, "text")).splitlines() if line[:7] == "offsim "]
)
def test_commands_that_take_too_long_or_a_cluster_have_these_options(command, capsys):
    _, name, *arguments = shlex.split(command)
    main([name, "--help"])
    known = capsys.readouterr().out.split()
    assert [argument for argument in arguments if argument.startswith("--") and argument not in known] == []


@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_python_snippets_print_and_write_what_they_say(page, workplace, capsys):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)
        assert bool(capsys.readouterr().out) == ("print(" in block)
        for written in re.findall(r"\.(?:savefig|to_html)\(\"(.+?)\"\)", block):
            assert (workplace / written).stat().st_size > 5_000


@pytest.mark.parametrize("page", pages_with("yaml"), ids=lambda page: page.name)
def test_scenarios_shown_fit(page):
    for block in blocks(page, "yaml"):
        assert simulate(yaml.safe_load(block)).fits


@pytest.mark.parametrize("page", pages_with("toml"), ids=lambda page: page.name)
def test_entry_points_shown_are_of_the_group_that_is_read(page):
    for block in blocks(page, "toml"):
        (group,) = tomllib.loads(block)["project"]["entry-points"]
        assert group in (registry.GROUP, activation_rules.GROUP)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
def test_continuous_integration_runs_the_readmes_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^block\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)
    for number, command in enumerate(blocks(README, "bash"), start=1):
        call = f"block {number}"
        assert f'bash -euo pipefail -c "$({call})"\n' in script
        run = subprocess.run(
            ["bash", "-c", f"{function[0]}{call}"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert run.stdout == command


def test_every_scheduler_is_in_the_readme_and_has_a_section():
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/schedules.md").read_text(encoding="utf-8"), re.MULTILINE)
    readme = README.read_text(encoding="utf-8")
    assert set(registry.BUILT_IN) <= set(sections)
    assert [name for name in registry.BUILT_IN if f"`{name}`" not in readme] == []
