"""A valid scenario or profile with some values changed is read, or is one InputError: nothing else comes out."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.imports.read import import_scenario
from offsim.inputs.errors import InputError
from offsim.inputs.packaged import packaged_file
from offsim.platform.profiles import load_profile
from offsim.scenario import load_scenario, scenario_profile
from offsim.schedulers.registry import scenario_scheduler
from tests.imports.files import ACCELERATE, ARGUMENTS, DS_CONFIG, LLAMA_2_7B, write

SCENARIO = packaged_file("scenarios", "dos_20b_4xh100")
PROFILE = packaged_file("hardware_profiles", "gh200")
assert SCENARIO is not None
assert PROFILE is not None
SCENARIO_TEXT, PROFILE_TEXT = SCENARIO.read_text(), PROFILE.read_text()


def nested(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = {"a": value}
    return value


WRONG_TYPES = st.sampled_from(
    [None, True, "", "auto", "x2", "1e8", "a\nb", "\x85", [], {}, [1], [[]], {"value": 1}, {"name": {}}]
)
WRONG_SIZES = st.sampled_from(
    [0, -1, 1.5, 2**64, 10**400, -(10**40), 1e308, -1e308, 5e-324, math.nan, math.inf, "9" * 5000, "x" * 5000]
)
WRONG_NESTING = st.builds(nested, st.sampled_from([1, [2], "x"]), st.sampled_from([1, 3, 14, 20, 200]))
VALUES = WRONG_TYPES | WRONG_SIZES | WRONG_NESTING
KEYS = st.sampled_from(["name", "hardware", "folder", "value", "unit", "low", "extends", "layers", "on", "1", "é", ""])


@st.composite
def mutated(draw: st.DrawFn, text: str) -> dict[str, Any]:
    """The document with up to three of its values replaced, taken away, nested deeper, or given to another key."""
    document: dict[str, Any] = copy.deepcopy(yaml.safe_load(text))
    for _ in range(draw(st.integers(1, 3))):
        section: Any = document
        while True:
            key = draw(st.sampled_from(list(section)) if section else KEYS)
            inner = section.get(key)
            if not isinstance(inner, dict) or draw(st.integers(0, 3)) == 0:
                break
            section = inner
        change = draw(st.sampled_from(["replace", "remove", "nest", "rename", "add"]))
        if change == "replace":
            section[key] = draw(VALUES)
        elif change == "nest":
            section[key] = {key: inner}
        elif change == "add":
            section[draw(KEYS)] = draw(VALUES)
        else:
            section.pop(key, None)
            if change == "rename":
                section[draw(KEYS)] = inner
    return document


@st.composite
def scrambled(draw: st.DrawFn, text: str) -> str:
    """The text with up to three of its lines repeated, shifted, cut or with characters put into them."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        within = draw(st.integers(0, len(lines[at])))
        junk = draw(
            st.sampled_from(["  ", "\t", ": ", "- ", "{", "]", "'", "&a ", "*a", "!!set ", "%", "#", "\x07", "|", "? "])
        )
        before, after = lines[at][:within], lines[at][within:]
        lines[at : at + 1] = draw(
            st.sampled_from([[lines[at]] * 2, [f" {lines[at]}"], [before], [], [before + junk + after]])
        )
        lines = lines or [""]
    return "\n".join(lines)


def read_scenario(source: Any) -> None:
    scenario = load_scenario(source)
    scenario_profile(scenario)
    scenario_scheduler(scenario)


def read_profile(path: Path) -> None:
    load_profile(str(path), Path())


def read_configurations(paths: tuple[Path, Path]) -> None:
    import_scenario(*paths, "gh200")


def read_huggingface(paths: tuple[Path, Path]) -> None:
    accelerate, arguments = paths
    for options in ({"fsdp": accelerate, "trainer": arguments}, {"trainer": arguments}):
        import_scenario(model=arguments.with_name("config.json"), hardware="gh200", **options)


def check(read: Callable[[Any], None], source: Any) -> None:
    """Read; a complaint is one line of ordinary length."""
    complaint = ""
    try:
        read(source)
    except InputError as error:
        complaint = str(error)
    assert "\n" not in complaint
    assert len(complaint) < 1200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


bounded = settings(derandomize=True, max_examples=150)


@bounded
@given(mapping=mutated(SCENARIO_TEXT))
def test_a_mutated_scenario_from_python(mapping: dict[str, Any]) -> None:
    check(read_scenario, mapping)


@bounded
@given(text=scrambled(SCENARIO_TEXT) | mutated(SCENARIO_TEXT).map(yaml.safe_dump))
def test_a_mutated_scenario_file(folder: Path, text: str) -> None:
    path = folder / "mine.yaml"
    path.write_text(text)
    check(read_scenario, path)


@bounded
@given(text=scrambled(PROFILE_TEXT) | mutated(PROFILE_TEXT).map(yaml.safe_dump))
def test_a_mutated_profile(folder: Path, text: str) -> None:
    path = folder / "gh200.yaml"
    path.write_text(text)
    check(read_profile, path)


@bounded
@given(
    deepspeed=st.just(json.dumps(DS_CONFIG)) | mutated(json.dumps(DS_CONFIG)).map(json.dumps),
    model=st.just(json.dumps(LLAMA_2_7B)) | mutated(json.dumps(LLAMA_2_7B)).map(json.dumps),
)
def test_mutated_configurations(folder: Path, deepspeed: str, model: str) -> None:
    check(read_configurations, write(folder, deepspeed, model))


NAMED = ARGUMENTS | {"fsdp": "full_shard offload", "fsdp_config": {"version": 1, "backward_prefetch": "BACKWARD_PRE"}}


@bounded
@given(
    accelerate=mutated(json.dumps(ACCELERATE)).map(json.dumps),
    arguments=st.just(json.dumps(NAMED)) | mutated(json.dumps(NAMED)).map(json.dumps),
)
def test_mutated_configurations_of_hugging_face(folder: Path, accelerate: str, arguments: str) -> None:
    write(folder)
    paths = folder / "accelerate.yaml", folder / "args.json"
    for path, text in zip(paths, (accelerate, arguments), strict=True):
        path.write_text(text)
    check(read_huggingface, paths)
