"""Pages of the documentation site: Markdown and notebooks of the repository, and references made from the code.

A hook of MkDocs (mkdocs.yml). Links lead to files of the repository, so that they work where pages are read as files;
here each leads to that file's place in the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

import offsim
from offsim.cli.app import app
from offsim.schedulers.registry import available_schedulers
from offsim.schema import SCHEMAS

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "offsim/validation/README.md": "measured_runs.md",
    **{f"docs/{page.name}": page.name for page in (ROOT / "docs").glob("*.md")},
    **{f"notebooks/{page.name}": f"notebooks/{page.stem}.md" for page in (ROOT / "notebooks").glob("*.ipynb")},
}
"""File of the repository -> its page."""
LINK = re.compile(r"(?<=\]\()(?!https:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace MkDocs' own list of pages by all that the site has."""
    for page in files.documentation_pages():
        files.remove(page)
    for path, content in _contents():
        if path not in files.src_uris:
            files.append(File.generated(config, path, content=content))
    return files


def _contents() -> Iterator[tuple[str, str | bytes]]:
    """Path -> content of each page, picture, and file that a page links to."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        pictures: dict[str, bytes] = {}
        if source.endswith(".ipynb"):
            text, resources = MarkdownExporter().from_filename(str(ROOT / source), {"unique_key": Path(source).stem})
            text = re.sub(r"<style.*?</style>|(?<=<table) [^>]*", "", text, flags=re.DOTALL)
            pictures = {f"notebooks/{name}": picture for name, picture in resources["outputs"].items()}
        folder = posixpath.dirname(page) or "."
        for link in set(LINK.findall(text)) - {posixpath.basename(picture) for picture in pictures}:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
            place = PAGES.get(target) or target.removeprefix("docs/")
            if target not in PAGES and not target.startswith("docs/"):
                place += ".txt"  # shown, not downloaded
                yield place, _shown(ROOT / target)
            text = text.replace(f"]({link}", f"]({posixpath.relpath(place, folder)}")
        yield page, text
        yield from pictures.items()
    schemas = {name: make() for name, make in SCHEMAS.items()}
    for name, schema in schemas.items():
        yield f"reference/{name}.md", _keys(name, schema)
        yield f"reference/{name}.schema.json", orjson.dumps(schema)
    yield "reference/schedulers.md", _schedulers(schemas["scenario"])
    command = get_command(app)
    yield "reference/cli.md", get_docs_for_click(obj=command, ctx=Context(command), title="Command line", name="offsim")
    members = [f"::: offsim.{name}" for name in offsim.__all__]
    yield "reference/python.md", "\n\n".join(["# Python", *members])


def _shown(path: Path) -> bytes:
    """The bytes of a file, or the names in a folder."""
    return path.read_bytes() if path.is_file() else "\n".join(sorted(each.name for each in path.iterdir())).encode()


def _keys(name: str, schema: Mapping[str, Any]) -> str:
    """Every key that a file may have, a table a section."""
    parts = [
        f"# {name.capitalize()} keys",
        f"Editors complete and check these keys by [a JSON Schema]({name}.schema.json), which `offsim schema {name}` "
        f"prints: `# yaml-language-server: $schema={name}.schema.json` as a file's first line.",
    ]
    sections = {"": schema["properties"]}
    for key, given in schema["properties"].items():
        if properties := _definition(given, schema).get("properties"):
            sections[key] = properties
    if name == "scenario":
        activations = _definition(sections["placement"]["activations"], schema)
        sections["placement.activations"] = activations["properties"]
    else:
        sections["a tier, by its own name"] = schema["additionalProperties"]["properties"]
        sections["an entry, which each value is"] = schema["$defs"]["_Entry"]["properties"]
    for section, properties in sections.items():
        parts += [f"## {section or 'the file'}", _table(properties, schema)]
    return "\n\n".join(parts)


def _schedulers(schema: Mapping[str, Any]) -> str:
    """The options of each scheduler."""
    parts = ["# Schedulers' options", "[Schedules](../schedules.md) says what each simulates, and its checks."]
    for name in available_schedulers():
        options = {key: given for key, given in schema["$defs"][name]["properties"].items() if key != "name"}
        parts += [f"## {name}", _table(options, schema) if options else "It has no options."]
    return "\n\n".join(parts)


def _table(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, given in properties.items():
        default = given.get("default")
        meaning = given.get("description") or _definition(given, schema).get("description", "").split("\n")[0]
        shown = "" if default is None or isinstance(default, dict) else f"`{orjson.dumps(default).decode()}`"
        rows.append(f"| `{key}` | {_value(given, schema)} | {shown} | {meaning} |".replace("\n", " "))
    return "\n".join(rows)


def _definition(given: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema refers to, optional or not; else itself."""
    for choice in (given, *given.get("anyOf", ())):
        if "$ref" in choice:
            return schema["$defs"][choice["$ref"].rpartition("/")[2]]
    return given


def _value(given: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The values that a schema allows, in words."""
    if "enum" in given:
        return ", ".join(f"`{word}`" for word in given["enum"])
    if "anyOf" in given:
        return " or ".join(_value(choice, schema) for choice in given["anyOf"] if choice.get("type") != "null")
    if "oneOf" in given or "$ref" in given or given.get("type") == "object":
        return "a section"
    if given.get("type") == "array":
        return f"a list of {_value(given['items'], schema)}s"
    names = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
    word = f"`{given['const']}`" if "const" in given else names[given["type"]]
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    return ", ".join([word, *(f"{text} {given[key]:g}" for key, text in bounds.items() if key in given)])
