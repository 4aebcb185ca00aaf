"""Tables of a few made-up runs of a small model."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from offsim.validation.predictions import Validation, validate_runs
from offsim.validation.run_table import SHIPPED_RUNS, RunTable, read_runs
from offsim.validation.series import SeriesComparison, compare_series, read_series

SMALL = {
    "hardware": "polaris-4xa100", "series": "made-up", "model": "tiny", "layers": "2", "hidden": "512",
    "ffn_hidden": "1024", "heads": "8", "kv_heads": "4", "seq": "128", "vocab": "1024", "swiglu": "True",
    "untied": "True", "checkpointing": "True", "flash_attn": "False", "tp": "1", "dp": "4", "micro_batch": "2",
    "global_batch": "8", "cpu_ratio": "1", "subgroup_size": "1000000", "scheduler": "zero3_offload",
    "update_stride": "", "dos_build": "", "fwd_ms": "10.5", "bwd_ms": "40", "step_ms": "60.0",
}  # fmt: skip
"""Cells of a run that can be simulated."""

TOO_BIG = {"micro_batch": "40000", "global_batch": "160000"}
"""Changes with which it does not fit in memory."""

MakeTable = Callable[..., Path]


def table_text(rows: list[Mapping[str, str]]) -> str:
    """CSV with the columns of all rows, in the order first seen."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Write a table of runs that differ from a small one in these cells."""

    def make(*changes: Mapping[str, str], without: tuple[str, ...] = ()) -> Path:
        rows = [{**SMALL, **change} for change in changes or ({},)]
        kept = [{column: cell for column, cell in row.items() if column not in without} for row in rows]
        path = tmp_path / "runs.csv"
        path.write_text(table_text(kept))
        return path

    return make


@pytest.fixture(scope="session")
def shipped() -> RunTable:
    """The table that comes with offsim."""
    return read_runs(SHIPPED_RUNS)


@pytest.fixture(scope="session")
def validation(shipped: RunTable) -> Validation:
    """Predictions of all runs of the table that comes with offsim."""
    return validate_runs(shipped)


@pytest.fixture(scope="session")
def series(shipped: RunTable) -> list[SeriesComparison]:
    """The measured series that come with offsim, beside the simulations of their runs."""
    return compare_series(read_series(), shipped.runs)


def assert_even_tables(markdown: str) -> None:
    """Rows of a table have as many cells as the row above; other lines have 120 characters at most."""
    lines = markdown.split("\n")
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|")
    assert all(len(line) <= 120 or line.startswith("|") for line in lines)
