"""The documentation site builds without warnings and loads nothing from elsewhere; schemas fit the shipped files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

import offsim
from offsim.cli.app import COMMANDS
from offsim.inputs.packaged import packaged_files
from offsim.inputs.yaml_input import read_yaml
from offsim.schedulers.registry import available_schedulers
from offsim.schema import SCHEMAS

ROOT = Path(__file__).parents[1]
FILES = [("scenario", path) for path in packaged_files("scenarios").values()]
FILES += [("profile", path) for path in packaged_files("hardware_profiles").values()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))  # strict: a warning is an error
    return folder


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?:", text) == []
        assert re.findall(r"<link[^>]+rel=\"?stylesheet\"?[^>]+href=\"?https?:", text) == []


def test_the_references_name_everything_public(site: Path) -> None:
    python, cli, options = (
        (site / "reference" / page / "index.html").read_text(encoding="utf-8")
        for page in ("python", "cli", "schedulers")
    )
    assert [name for name in offsim.__all__ if f"offsim.{name}" not in python] == []
    assert [name for name in COMMANDS if f"offsim {name}" not in cli] == []
    assert [name for name in available_schedulers() if f'id="{name}"' not in options] == []


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda part: getattr(part, "stem", part))
def test_shipped_files_fit_their_schema(kind: str, path: Path) -> None:
    jsonschema.validate(read_yaml(path).data, SCHEMAS[kind]())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("scenario", {"training": {"micro_batches": 1}}),
        ("scenario", {"scheduler": {"name": "deep_optimizer_states", "updte_stride": 2}}),
        ("scenario", {"scheduler": {"name": "deep_optimizer_state"}}),
        ("profile", {"gpu": {"memory": {"value": 1, "unit": "B", "source": "datasheet"}}}),
        ("profile", {"gpu": {"memory_bytes": {"value": 1, "unit": "B", "source": "guessed"}}}),
    ],
)
def test_schemas_refuse_misspelt_keys_and_values(kind: str, wrong: dict[str, dict[str, object]]) -> None:
    path = dict(FILES)[kind]
    given = read_yaml(path).data
    for section, values in wrong.items():
        given[section] |= values
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, SCHEMAS[kind]())


def test_every_scenario_key_has_a_meaning() -> None:
    schema = SCHEMAS["scenario"]()
    sections = {"the file": schema} | schema["$defs"]
    without = [
        f"{section}.{key}"
        for section, given in sections.items()
        for key, value in given.get("properties", {}).items()
        if not {"description", "$ref", "anyOf", "oneOf"} & value.keys()
    ]
    assert without == []


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
