"""The tables of measured runs in a folder, joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from offsim.inputs.errors import InputError
from offsim.inputs.packaged import is_path
from offsim.platform.profiles import load_profile
from offsim.validation.run_table import SHIPPED_RUNS, TABLE, NoProfile, RunTable, missing_columns, read_runs

SHIPPED_TABLES = tuple(
    SHIPPED_RUNS.with_name(f"{name}.csv") for name in ("measured_runs", "parallel_runs", "nvme_runs", "tiers_runs")
)
"""The tables that come with offsim: two of Deep Optimizer States, of MLP-Offload, and of DDR, CXL memory and NVMe."""
SUFFIXES = (".csv", ".csv.gz")


def shipped_runs(hardware: str | None = None) -> RunTable:
    """Read the tables that come with offsim as one."""
    return _joined(SHIPPED_RUNS.with_name("*_runs.csv"), [read_runs(path, hardware) for path in SHIPPED_TABLES])


def table_files(path: str | Path) -> list[Path]:
    """The file itself; of a folder its CSV files (also gzipped) by name, but hidden ones."""
    path = Path(path)
    try:
        if not path.is_dir():
            return [path]
        found = sorted(
            file
            for file in path.iterdir()
            if file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".") and file.is_file()
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if not found:
        raise InputError("found a folder without CSV files, expected tables of runs in it", str(path))
    return found


def read_tables(path: str | Path | None, hardware: str | None = None) -> tuple[RunTable, list[str]]:
    """Read a table of runs, or a folder of them as one, and say which of the folder's files are none, and why.

    None stands for the tables that come with offsim.

    Of several tables each run has a cell with the name of its own. `hardware` is the profile to predict with, if not
    those that the tables name. Raises InputError for the first thing wrong in a file that has the columns of a table of
    runs.
    """
    if hardware is not None:
        try:
            load_profile(hardware)
        except InputError as error:
            raise InputError(error.problem, error.where or f"--hardware '{hardware}'") from None
        if is_path(hardware):  # a table's paths are relative to its folder
            hardware = str(Path(hardware).resolve())
    try:
        return (shipped_runs(hardware), []) if path is None else _read_tables(path, hardware)
    except NoProfile as error:
        raise InputError(f"{error.problem}; --hardware PROFILE says which to predict with", error.where) from None


def _read_tables(path: str | Path, hardware: str | None) -> tuple[RunTable, list[str]]:
    path = Path(path)
    files = table_files(path)
    if files == [path]:
        return read_runs(path, hardware), []
    missing = {file: missing_columns(file) for file in files}
    left_out = [f"{file}: no table of runs, {problem}" for file, problem in missing.items() if problem]
    tables = [read_runs(file, hardware) for file, problem in missing.items() if not problem]
    if not tables:
        problem = f"found no table of runs among {len(files)} CSV files, the first is {left_out[0]}"
        raise InputError(problem, str(path))
    return (tables[0] if len(tables) == 1 else _joined(path.resolve(), tables)), left_out


def _joined(path: Path, tables: Sequence[RunTable]) -> RunTable:
    """One table of all; lines count on from one to the next, so that each run has its own."""
    columns: dict[str, None] = {TABLE: None}
    runs = []
    before = 0
    for table in tables:
        columns.update(dict.fromkeys(table.columns))
        runs += [
            replace(run, line=before + run.line, before=before, cells={TABLE: table.path.name, **run.cells})
            for run in table.runs
        ]
        before += table.runs[-1].line
    return RunTable(path, tuple(columns), tuple(runs))
