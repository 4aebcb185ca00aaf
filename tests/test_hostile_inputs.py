"""Whatever is in a file or an option, the answer is a result or one message: no traceback, no half-written file.

A minute in continuous integration. `OFFSIM_FUZZ=50 pytest -n0 tests/test_hostile_inputs.py` tries 50 times as many,
others each time.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offsim import sweep
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.inputs.packaged import packaged_file
from offsim.study import read_results
from tests.calibration.synthetic_logs import whole_log
from tests.calibration.synthetic_measurements import harness_folder
from tests.calibration.synthetic_runs import runs_table
from tests.calibration.trace_files import offloaded_step, write_kineto, write_nsight
from tests.imports.files import ACCELERATE, ARGUMENTS, DS_CONFIG, LLAMA_2_7B, write
from tests.small_scenarios import scenario
from tests.study.small_sweeps import small_sweep

LONGER = int(os.environ.get("OFFSIM_FUZZ", "1"))
MESSAGE_LENGTH = 2_000
DEEP: Any = "x"
for _ in range(200):
    DEEP = {"a": DEEP}
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 1, 1.5, 7, 10**6, 10**15, 10**400, 1e308, -1e308, 5e-324, [], {}, [[]], [None], {"": None}),
    *("", " ", "nan", ".inf", "x2", "x-1", "xnan", "1e8", "5GB/s", "5 parsecs", "-0", "0x10", "1_0", "\0", "\n", "☃"),
    *("../..", "/dev/null", "~", "=", "a.b.c", "x" * 100_000, {"name": "zero3_offload"}, [{"tier": "gpu"}]),
    *({"from": 0, "to": 1e9, "step": 1e-9}, {"value": 1}, math.nan, math.inf, -(10**40), "9" * 5_000, "\x85", DEEP),
]


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples, or as many times more as are asked for."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=count * LONGER,
        derandomize=LONGER == 1,
        deadline=None,
        suppress_health_check=checks,
        database=None,
    )


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document of mappings and lists but its root."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def hostile(draw: st.DrawFn) -> Any:
    """A value of its own, which further changes may change."""
    return deepcopy(draw(st.sampled_from(HOSTILE)))


@st.composite
def damaged_documents(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three of its values replaced, gone, or under another name."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        section = document
        for part in path:
            section = section[part]
        value = section.pop(key)
        change = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "wrap"]))
        if isinstance(section, list):
            section.insert(key, hostile(draw))
        elif change == "replace":
            section[key] = hostile(draw)
        elif change == "rename":
            section[draw(st.sampled_from([f"{key}s", key[:-1], "", key.upper()]))] = value
        elif change == "wrap":
            section[key] = draw(st.sampled_from([[value], {key: value}, str(value)]))
    return document


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes cut off, with others in between, or with some replaced."""
    at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    other = draw(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([b"\0", b"\xff\xfe", b"NaN", b"1e999", b"- - - -", b"{" * 5_000, b"\t", b"&a ", b"*a"]),
            st.sampled_from([b"!!set ", b"%", b"#", b"'", b"|", b"? ", b"\x07", b": "]),
        )
    )
    kind = draw(st.sampled_from(["cut", "insert", "replace"]))
    return {
        "cut": data[:at],
        "insert": data[:at] + other + data[at:],
        "replace": data[:at] + other + data[min(to, at + 40) :],
    }[kind]


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder, in which nothing half-written may be left."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        assert [path.name for path in Path(name).rglob(".offsim*")] == []


def answers(*arguments: str | Path) -> None:
    """Run the command: a result, or one message."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    said = err.getvalue()
    assert code in (0, 1, 2), said
    if code == 2:
        assert out.getvalue() == ""
        assert said.startswith(("Error: ", "Usage: ")), said
        assert said.startswith("Usage: ") or said.count("\n") == 1, said
        assert len(said) <= MESSAGE_LENGTH, len(said)


SCENARIO = {
    **scenario(),
    "placement": {"optimizer": [{"tier": "host"}]},
    "hardware_changes": {"link": {"h2d_bytes_per_s": "x2"}},
}
PROFILE = yaml.safe_load(packaged_file("hardware_profiles", "jlse-4xh100-nvme").read_text())  # type: ignore[union-attr]


@given(damaged_documents(SCENARIO))
@examples(750)
def test_scenarios(document: Any) -> None:
    with folder() as place:
        (place / "a.yaml").write_text(yaml.safe_dump(document))
        answers("run", place / "a.yaml")


@given(damaged_bytes(yaml.safe_dump(SCENARIO).encode()))
@examples(300)
def test_bytes_of_scenarios(data: bytes) -> None:
    with folder() as place:
        (place / "a.yaml").write_bytes(data)
        answers("run", place / "a.yaml")


@given(damaged_documents(PROFILE))
@examples(180)
def test_profiles(document: Any) -> None:
    with folder() as place:
        path = place / "jlse-4xh100-nvme.yaml"
        path.write_text(yaml.safe_dump(document))
        answers("profiles", path)
        (place / "a.yaml").write_text(yaml.safe_dump({**SCENARIO, "hardware": str(path)}))
        answers("run", place / "a.yaml")


KEYS = (
    *("", "=", "a.b=", "model=", "training.micro_batch=", "scheduler.name=", "scheduler.cpu_ratio="),
    *("hardware_changes.link.h2d_bytes_per_s=", "placement.optimizer=", "zero3_offload:cpu_ratio="),
)


@given(st.data())
@examples(360)
def test_options(data: st.DataObject) -> None:
    command, option = data.draw(st.sampled_from([("run", "--set"), ("compare", "--scheduler")]))
    value = data.draw(st.one_of(st.integers(0, len(HOSTILE) - 1), st.text(max_size=20)))
    text = value if isinstance(value, str) else str(HOSTILE[value])
    with folder() as place:
        (place / "a.yaml").write_text(yaml.safe_dump(SCENARIO))
        answers(command, place / "a.yaml", option, f"{data.draw(st.sampled_from(KEYS))}{text}")


@given(damaged_documents({**small_sweep(), "skip": [{"scheduler.update_stride": 2}]}))
@examples(120)
def test_sweeps(document: Any) -> None:
    with folder() as place, suppress(InputError):
        sweep(document, out=place / "out", jobs=1, max_points=12)


@given(st.sampled_from(["trace", "replay"]), damaged_documents(offloaded_step()))
@examples(360)
def test_kineto_traces(command: str, events: Any) -> None:
    with folder() as place:
        answers(command, write_kineto(place / "trace.json", events))


@given(st.data())
@examples(180)
def test_bytes_of_other_files(data: st.DataObject) -> None:
    with folder() as place:
        write_nsight(place / "report.sqlite")
        write_kineto(place / "trace.json.gz")
        runs_table(place / "runs.csv")
        (place / "train.log").write_text("\n".join(whole_log()) + "\n")
        path, *command = data.draw(
            st.sampled_from(
                [
                    ("report.sqlite", "trace"),
                    ("trace.json.gz", "trace"),
                    ("runs.csv", "validate"),
                    ("train.log", "logs"),
                ]
            )
        )
        (place / path).write_bytes(data.draw(damaged_bytes((place / path).read_bytes())))
        answers(*command, place / path)


@given(damaged_documents(DS_CONFIG), damaged_documents(LLAMA_2_7B), st.booleans())
@examples(300)
def test_configurations(deepspeed: Any, model: Any, both: bool) -> None:
    with folder() as place:
        ds_config, config = write(place, deepspeed, model if both else LLAMA_2_7B)
        answers("run", "--deepspeed", ds_config, "--model", config, "--hardware", "jlse-4xh100")


TRAINER = ARGUMENTS | {"fsdp": "full_shard offload", "fsdp_config": {"version": 1, "backward_prefetch": "BACKWARD_PRE"}}


@given(damaged_documents(ACCELERATE), damaged_documents(TRAINER), st.booleans())
@examples(150)
def test_configurations_of_hugging_face(accelerate: Any, arguments: Any, named: bool) -> None:
    with folder() as place:
        _, model = write(place)
        for name, document in {"accelerate.yaml": accelerate, "args.json": arguments}.items():
            (place / name).write_text(json.dumps(document))
        fsdp = () if named else ("--fsdp", place / "accelerate.yaml")
        answers("run", *fsdp, "--trainer", place / "args.json", "--model", model, "--hardware", "jlse-4xh100")


@given(st.data())
@examples(90)
def test_measurements(data: st.DataObject) -> None:
    with folder() as place:
        rows = harness_folder(place / "harness") / "microbenchmarks.jsonl"
        lines = rows.read_text().splitlines()
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = json.dumps(data.draw(damaged_documents(json.loads(lines[at]))))
        rows.write_text("\n".join(lines))
        answers("calibrate", place / "harness", "--base", "jlse-4xh100", "--out", place / "mine.yaml")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    sweep(small_sweep(), out=out, jobs=1)
    return out


@given(data=st.data())
@examples(180)
def test_results_of_sweeps(results: Path, data: st.DataObject) -> None:
    with folder() as place:
        (place / "results.parquet").write_bytes(data.draw(damaged_bytes((results / "results.parquet").read_bytes())))
        with suppress(InputError):
            read_results(place)
