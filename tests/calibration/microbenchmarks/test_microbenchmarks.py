"""The harness's microbenchmarks are read as it writes them; what is wrong in them is one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offsim.calibration.microbenchmarks.rows import Timed, read_microbenchmarks
from offsim.inputs.errors import InputError
from tests.calibration.synthetic_measurements import row, write


def test_amounts_are_bytes_elements_and_flops(tmp_path: Path) -> None:
    rows = [
        row("duplex_pinned", 4096, 2.0, 1.0, threads=3, clock="host"),
        row("cpu_adam", 100, 1.0, condition="copies"),
        row("gemm", [2, 3, 4], 1.0),
        row("nvme_read", [], 1.0, threads="all"),  # of a later harness
    ]
    duplex, adam, product = read_microbenchmarks(write(tmp_path / "m.jsonl", *rows))
    assert duplex == Timed("duplex_pinned", 4096, 3, "idle", "host", (2.0, 1.0))
    assert duplex.median == 1.5
    assert (adam.amount, adam.condition) == (100, "copies")
    assert (product.amount, product.clock) == (2 * 2 * 3 * 4, "device")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON, expected an object a line"),
        ("[" * 100_000, "not valid JSON, expected an object a line"),
        ("[1]", "found no JSON object, expected one a line"),
        ('{"seconds": [1]}', "missing keys: quantity, size"),
        ('{"quantity": 1}', "quantity: found 1, expected"),
        ({"seconds": []}, "seconds: "),
        ({"seconds": [0]}, "seconds.0: found 0, expected at least 1e-12"),
        ({"seconds": [1, 1e7]}, "seconds.1: found 10000000.0, expected at most 1e+06"),
        ({"size": 10**400}, "size: found "),
        ({"seconds": [float("nan")]}, "seconds.0: found nan, expected"),
        ({"size": 0}, "size: found 0, expected more than 0"),
        ({"size": "big"}, "size: found 'big', expected a number"),
        ({"size": 1e300}, "size: found 1e+300, expected at most"),
        ({"size": [1, 2, 3]}, "size: found a list, expected a number"),
        ({"unit": "MB"}, "unit: found 'MB', expected 'bytes' of h2d_pinned"),
        ({"clock": "wall"}, "clock: found 'wall', expected "),
        ({"threads": 0}, "threads: found 0, expected more than 0"),
        ({"quantity": "gemm", "size": 5, "unit": "m x n x k"}, "size: found 5, expected m, n and k"),
        ({"quantity": "gemm", "size": [1, 2, 0], "unit": "m x n x k"}, "size.2: found 0, expected more than 0"),
    ],
)
def test_wrong_lines_are_one_message(tmp_path: Path, line: str | dict[str, Any], problem: str) -> None:
    path = tmp_path / "microbenchmarks.jsonl"
    good = row("h2d_pinned", 1e9, 0.02)
    text = line if isinstance(line, str) else json.dumps(good | line)
    path.write_text(f"{json.dumps(good)}\n\n{text}\n")
    with pytest.raises(InputError) as caught:
        read_microbenchmarks(tmp_path)
    assert str(caught.value).startswith(f"{path}:3: {problem}")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_microbenchmarks(tmp_path)
    (tmp_path / "microbenchmarks.jsonl").write_text("\n")
    with pytest.raises(InputError, match="found an empty file"):
        read_microbenchmarks(tmp_path)
