"""Tables of measured runs: CSV files (also gzipped) of one row per run, read into scenarios and measured values.

A prediction is made from the configuration columns alone. Of the other columns, those that offsim predicts are
measured values to score it by; the rest is kept as it is.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsim.inputs.document import Document, Mark, dotted, flat
from offsim.inputs.errors import InputError, nearest
from offsim.inputs.fields import parsed_number
from offsim.inputs.packaged import is_path
from offsim.inputs.reading import read_at_most, reading, unpacked
from offsim.inputs.validate import validate
from offsim.platform.platform import GPU, HOST
from offsim.platform.profiles import load_profile
from offsim.programs.options import declared
from offsim.programs.schedule import TrainingSchedule
from offsim.scenario import Model, Scenario, Training, scenario_profile
from offsim.schedulers.registry import find_scheduler, scenario_scheduler

MAX_BYTES = 64_000_000

SHIPPED_RUNS = Path(__file__).with_name("measured_runs.csv")

# Column -> where its value goes in a scenario
_KEYS: dict[str, tuple[str, ...]] = {
    "hardware": ("hardware",),
    **{name: ("model", name) for name in ("layers", "hidden", "ffn_hidden", "heads", "kv_heads")},
    "seq": ("model", "sequence"),
    **{name: ("model", name) for name in ("vocab", "swiglu")},
    "untied": ("model", "tied_embeddings"),
    "checkpointing": ("training", "activation_checkpointing"),
    "flash_attn": ("model", "flash_attention"),
    "tp": ("training", "tensor_parallel"),
    "dp": ("training", "data_parallel"),
    **{name: ("training", name) for name in ("micro_batch", "global_batch", "subgroup_size")},
    "scheduler": ("scheduler", "name"),
}
OPTIONAL_KEYS: dict[str, tuple[str, ...]] = {
    name: (section, name)
    for section, model in (("model", Model), ("training", Training))
    for name in model.model_fields
    if (section, name) not in _KEYS.values()
}
"""As `_KEYS`, of columns that a table may lack, and whose cells may be empty."""
_FLAGS = ("swiglu", "untied", "checkpointing", "flash_attn")
_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}

_TIERS = {"dram": HOST, "cxl": "cxl", "nvme": "nvme", "pfs": "pfs"}
"""Cell of `optimizer_tier` -> tier of the profile."""

OPTIONAL = ("optimizer_tier", "series", "nodes")
"""Configuration columns that may be missing; `series` and `nodes` are names only: nodes are filled one by one.

So may columns of schedulers' options. They are of the options' names, unless an option declares another `column`.
"""
REQUIRED = ("model", *(column for column in _KEYS if column not in OPTIONAL))
"""Configuration columns that a table must have; `model` is a name only."""

TIMES = {"fwd_ms": "forward", "bwd_ms": "backward", "step_ms": "update"}
"""Column -> the simulated phase that it is the time of."""
MEASURED_PHASES = {"forward": "forward", "backward": "backward", "update": "step"}
"""Simulated phase -> what measurements call it."""
SIMULATED_PHASES = {measured: simulated for simulated, measured in MEASURED_PHASES.items()}
COLUMN_OF = {MEASURED_PHASES[phase]: column for column, phase in TIMES.items()}
"""Measured phase -> the column of its time."""
MEASURED = (
    *(*TIMES, "iteration_ms", "mem_before_forward_gib", "mem_after_forward_gib", "peak_after_forward_gib"),
    *("mem_after_backward_gib", "peak_after_backward_gib"),
)
"""The measured columns that offsim predicts."""
WITHOUT_GPU = "cpu-only"
"""What the harness calls the hardware where it finds no GPU."""
TABLE = "table"
"""The column that says which one a run is from, where there are several."""
RESERVED = (TABLE, "fits", "measured", "predicted", "verdict")
"""Names that a document of predictions adds to a run's columns."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One row: the cells as written, what to simulate, and the values to score it by (ms and GiB, as in the table)."""

    line: int
    cells: Mapping[str, str]
    scenario: Scenario
    measured: Mapping[str, float]
    before: int = 0
    """Lines of the tables before its own, which `line` counts too."""

    def cell(self, column: str) -> str:
        """Return the column's cell without spaces around it; "" where the table has no such column."""
        return self.cells.get(column, "").strip()

    @property
    def has_all_phases(self) -> bool:
        """Whether forward, backward and step were all measured."""
        return all(column in self.measured for column in TIMES)


@dataclass(frozen=True, slots=True)
class RunTable:
    """The rows of a file, and its columns in their order."""

    path: Path
    columns: tuple[str, ...]
    runs: tuple[MeasuredRun, ...]


class NoProfile(InputError):
    """A row's cell `hardware` names nothing that can be predicted with."""


def read_runs(path: str | Path, hardware: str | None = None) -> RunTable:
    """Read a table of measured runs; raise InputError, with the line and the column, for the first thing wrong.

    `hardware` is the profile to predict with in place of those that the rows name.
    """
    path = Path(path)
    rows = numbered_rows(path)
    line, header = next(rows, (1, []))
    columns = _columns(path, line, header)
    runs = tuple(run_of(path, line, cells_in(path, line, columns, row), hardware) for line, row in rows)
    if not runs:
        raise InputError("found no rows below the columns' names, expected one per run", str(path))
    return RunTable(path, columns, runs)


def missing_columns(path: Path) -> str:
    """Why a file is no table of runs, as its first line shows; "" where it is one, be it with errors in its rows."""
    try:
        line, header = next(numbered_rows(path), (1, []))
        _columns(path, line, header)
    except InputError as error:
        return error.problem
    return ""


def in_columns(error: InputError) -> InputError:
    """Name a table's columns instead of the scenario's keys in an error about a row."""
    problem = error.problem
    for column, key in sorted((_KEYS | OPTIONAL_KEYS).items(), key=lambda item: -len(dotted(item[1]))):
        if len(key) > 1:
            problem = problem.replace(dotted(key), f"column '{column}'")
    return InputError(re.sub(r"\bscheduler\.(\w+)", r"column '\1'", problem), error.where)


def read_rows(path: str | Path) -> Iterator[dict[str, str]]:
    """Read a CSV file (also gzipped) that comes with offsim, one mapping per row."""
    rows = numbered_rows(Path(path))
    _, header = next(rows, (1, []))
    for _, row in rows:
        yield dict(zip(header, row, strict=True))


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with the line that it begins on; InputError where it is none."""
    lines = _text(path).splitlines(keepends=True)
    reader = csv.reader(lines, strict=True)
    line = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"not valid CSV: {error}", f"{path}:{line}") from None
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield line, row
        line = reader.line_num + 1


def _text(path: Path) -> str:
    with reading(path, "a CSV file") as file:
        raw = read_at_most(unpacked(file), MAX_BYTES, "a table of runs", path)
    if not raw.strip():
        raise InputError("found an empty file, expected a CSV file with the columns' names in line 1", str(path))
    try:
        text = raw.decode("utf-8-sig")
        binary = text.find("\0")
    except UnicodeDecodeError as error:
        binary = error.start
    if binary >= 0:
        line = raw.count(b"\n", 0, binary) + 1
        problem = f"found byte 0x{raw[binary]:02x}, expected UTF-8 text of columns separated by commas"
        raise InputError(problem, f"{path}:{line}")
    return text


def _columns(path: Path, line: int, header: list[str]) -> tuple[str, ...]:
    where = f"{path}:{line}"
    columns = tuple(name.strip() for name in header)
    for other, meaning in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and other in columns[0]:
            raise InputError(f"found columns separated by {meaning}, expected commas", where)
    for position, name in enumerate(columns):
        if name in columns[:position]:
            raise InputError(f"found the column '{name}' twice, expected different names", where)
        if name in RESERVED:
            raise InputError(f"found a column '{name}', which is a name of the results; expected another one", where)
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL, *MEASURED)]
    for name in REQUIRED:
        if name not in columns:
            near = nearest(name, unknown)
            hint = f"; the nearest found is '{near}'" if near else ""
            raise InputError(f"missing the column '{name}'{hint}", where)
    return columns


def cells_in(path: Path, line: int, columns: Sequence[str], row: list[str]) -> dict[str, str]:
    """Column -> cell of a row; InputError where it has another number of them."""
    if len(row) != len(columns):
        problem = f"found {len(row)} cells, expected {len(columns)}, one for each column of line 1"
        raise InputError(problem, f"{path}:{line}")
    return dict(zip(columns, row, strict=True))


def run_of(path: Path, line: int, cells: Mapping[str, str], hardware: str | None = None) -> MeasuredRun:
    """What the cells of a row say; raise InputError, at that line of the file, for the first thing wrong."""
    used = cells if hardware is None else {**cells, "hardware": hardware}
    return MeasuredRun(line, cells, _scenario(path, line, used), _measured(f"{path}:{line}", cells))


def cells_of(scenario: Scenario) -> tuple[dict[str, str], list[str]]:
    """The configuration columns of a scenario's runs, and the values of the scenario that no column says."""
    values = scenario.model_dump()
    cells = {"model": scenario.name}
    for column, key in (_KEYS | OPTIONAL_KEYS).items():
        value = values[key[0]] if len(key) == 1 else values[key[0]][key[1]]
        cells[column] = "" if value is None else str(not value if column == "untied" else value)
    if is_path(scenario.hardware):
        cells["hardware"] = str((scenario.folder / scenario.hardware).resolve())
    cls, options = scenario_scheduler(scenario)
    for option in declared(cls.Options):
        value = getattr(options, option.name)
        words = [word for word, meaning in option.cells.items() if meaning == value]
        cells |= {option.column: words[0] if words else str(value)} if value is not None else {}
    said, given = (
        flat(one.model_dump(exclude={"name", "folder", "hardware", "scheduler"}))
        for one in (run_of(Path("scenario"), 1, cells).scenario, scenario)
    )
    return cells, [key for key, value in given.items() if said.get(key) != value]


def _bad_cell(where: str, column: str, found: str, expected: str) -> InputError:
    shown = repr(found if len(found) <= 40 else f"{found[:37]}...") if found else "nothing"
    return InputError(f"column '{column}': found {shown}, expected {expected}", where)


def _measured(where: str, cells: Mapping[str, str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for column in MEASURED:
        text = cells.get(column, "").strip()
        if not text:
            continue
        if not (value := parsed_number(text)) or not 0 < value < math.inf:
            raise _bad_cell(where, column, text, "a number above 0, or an empty cell")
        values[column] = value
    return values


def _number(text: str) -> object:
    """The number or flag that a text stands for; else the text, for the scheduler to complain about."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    value = parsed_number(text)
    return text if value is None else int(value) if value.is_integer() else value


def _options(where: str, cells: Mapping[str, str], scheduler: type[TrainingSchedule]) -> Iterator[tuple[str, object]]:
    """The scheduler's options that the table has columns of."""
    for option in declared(scheduler.Options):
        column, words = option.column, option.cells
        if column not in cells:
            continue
        text = cells[column].strip()
        if words:
            if text and text.upper() not in words:
                raise _bad_cell(where, column, text, f"{', '.join(words)} or an empty cell")
            if text:
                yield option.name, words[text.upper()]
        elif not text:
            raise _bad_cell(where, column, text, f"a number ({scheduler.name} needs it)")
        else:
            yield option.name, _number(text)


def _runs_options(data: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the profile says its testbed's runs had."""
    try:
        profile = load_profile(data["hardware"], data["folder"])
    except InputError:  # said of the scenario below
        return {}
    return dict(profile.runs.get(data["scheduler"]["name"], {}))


def _scenario(path: Path, line: int, cells: Mapping[str, str]) -> Scenario:
    """Build and check what the configuration columns say, down to the scheduler's options and the profile."""
    where = f"{path}:{line}"
    data: dict[str, Any] = {"model": {}, "training": {}, "scheduler": {}, "folder": path.parent}
    try:
        scheduler = find_scheduler(cells["scheduler"].strip())
    except InputError as error:
        raise InputError(f"column 'scheduler': {error.problem}", where) from error.__cause__
    for column, key in _KEYS.items():
        text = cells.get(column, "").strip()
        value: object = text
        if not text:
            expected = "a name" if column == "hardware" else "true or false" if column in _FLAGS else "a number"
            raise _bad_cell(where, column, text, expected)
        if column in _FLAGS:
            flag = _WORDS.get(text.lower())
            if flag is None:
                raise _bad_cell(where, column, text, "true or false")
            value = flag != (column == "untied")
        section = data if len(key) == 1 else data[key[0]]
        section[key[-1]] = value
    for column, key in OPTIONAL_KEYS.items():
        if text := cells.get(column, "").strip():
            data[key[0]][key[1]] = _number(text)
    data["scheduler"] |= dict(_options(where, cells, scheduler))
    if tier := cells.get("optimizer_tier", "").strip().lower():
        if tier not in _TIERS:
            raise _bad_cell(where, "optimizer_tier", tier, f"{', '.join(_TIERS)} or an empty cell")
        if _TIERS[tier] != scheduler.optimizer_home:
            shares = [
                data["scheduler"].pop(option) for option in scheduler.placement_options if option in data["scheduler"]
            ]
            first = {"tier": _TIERS[tier], "share": shares[0] if shares else 1}
            data["placement"] = {"optimizer": [first, {"tier": GPU, "share": "rest"}]}
    data["scheduler"] = _runs_options(data) | data["scheduler"]
    document = Document(data, {(): Mark(str(path), line)})
    try:
        scenario = validate(document, Scenario)
        scenario._document = document
        scenario_scheduler(scenario)
    except InputError as error:
        raise in_columns(error) from None
    if scenario.hardware == WITHOUT_GPU:
        raise NoProfile(
            f"column 'hardware': found '{WITHOUT_GPU}', measured without a GPU: no profile stands for it", where
        )
    try:
        scenario_profile(scenario)
    except InputError as error:
        if error.where != where:  # it is about the profile's own file
            raise
        raise NoProfile(f"column 'hardware': {error.problem}", where) from None
    return scenario
