"""Microbenchmarks give back the constants that they were made with; what they leave open is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offsim.calibration.microbenchmarks import Estimate, fit_microbenchmarks, read_microbenchmarks
from offsim.errors import InputError
from tests.calibration.synthetic_measurements import THREADS, TRUTH, harness_folder


def estimates(path: Path) -> dict[str, Estimate]:
    return {e.name: e for e in fit_microbenchmarks(read_microbenchmarks(path), THREADS, str(path))}


def test_known_constants_come_back(tmp_path: Path) -> None:
    missed = []
    for seed in range(3):
        found = estimates(harness_folder(tmp_path / str(seed), seed))
        assert set(found) == set(TRUTH)
        for name, truth in TRUTH.items():
            interval = found[name].interval
            assert interval.value == pytest.approx(truth, rel=0.05), name
            assert interval.spread < 1.3
            missed += [name] if not interval.low <= truth <= interval.high else []
    assert len(missed) <= 0.2 * 3 * len(TRUTH), missed
    assert found["launch"].samples == 8
    assert found["link.h2d_bytes_per_s"].file == str(tmp_path / "2")


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def copy(size: float, seconds: float, quantity: str = "h2d_pinned", **more: Any) -> dict[str, Any]:
    return {"quantity": quantity, "bytes": size, "seconds": [seconds, seconds * 1.01], **more}


def test_one_size_has_no_latency(tmp_path: Path) -> None:
    found = estimates(write(tmp_path / "m.jsonl", copy(1e9, 0.02)))
    assert list(found) == ["link.h2d_bytes_per_s"]
    assert found["link.h2d_bytes_per_s"].interval.value == pytest.approx(5e10, rel=0.01)


def test_large_copies_do_not_tell_a_latency(tmp_path: Path) -> None:
    rows = [copy(size, size / 5e10 * wobble) for size, wobble in ((1e9, 1.0), (2e9, 1.01), (4e9, 0.99))]
    found = estimates(write(tmp_path / "m.jsonl", *rows))
    assert list(found) == ["link.h2d_bytes_per_s"]


def test_cpu_work_that_dma_does_not_slow_leaves_the_memory_bandwidth_open(tmp_path: Path) -> None:
    adam = {"quantity": "cpu_adam", "elements": 1e8, "threads": 8, "seconds": [0.1, 0.1]}
    rows = [adam, adam | {"condition": "under dma"}, copy(1e9, 0.02, condition="cpu busy")]
    assert list(estimates(write(tmp_path / "m.jsonl", *rows))) == ["host.adam_params_per_s"]
    slower = adam | {"condition": "under dma", "seconds": [0.2, 0.2]}
    found = estimates(write(tmp_path / "m.jsonl", rows[0], slower, rows[2]))
    assert found["host.memory_bytes_per_s"].interval.value == pytest.approx(28 * 5e8 + 5e10, rel=0.01)


def test_matrix_products_of_a_machine_without_gpu_say_nothing_of_one(tmp_path: Path) -> None:
    def products(clock: str) -> list[dict[str, Any]]:
        return [
            {"quantity": "gemm", "size": [n, n, n], "clock": clock, "seconds": [1e-5 + 2 * n**3 / 1e14] * 5}
            for n in (256, 1024, 4096)
        ]

    assert set(estimates(write(tmp_path / "gpu.jsonl", *products("device")))) >= {"gpu.matrix_flops_per_s"}
    assert not estimates(write(tmp_path / "cpu.jsonl", *products("host")))


def test_quantities_of_a_later_harness_are_passed_over(tmp_path: Path) -> None:
    rows = [copy(1e9, 0.02), {"quantity": "nvme_read", "seconds": [1.0]}, copy(1e9, 0.02, "duplex", device="x")]
    assert list(estimates(write(tmp_path / "m.jsonl", *rows))) == ["link.h2d_bytes_per_s", "link.duplex_bytes_per_s"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not valid JSON, expected an object a line"),
        ("[" * 100_000, "not valid JSON, expected an object a line"),
        ("[1]", "found no JSON object, expected one a line"),
        ('{"seconds": [1]}', "missing key 'quantity'"),
        ('{"quantity": "gemm", "m": 1, "n": 1, "seconds": [1]}', "missing key 'k', expected how much gemm worked on"),
        ('{"quantity": "launch", "seconds": []}', "seconds: "),
        ('{"quantity": "launch", "seconds": [0]}', "seconds.0: found 0, expected more than 0"),
        ('{"quantity": "launch", "seconds": [NaN]}', "seconds.0: found nan, expected"),
        ('{"quantity": "duplex", "bytes": -1, "seconds": [1]}', "bytes: found -1, expected more than 0"),
    ],
)
def test_wrong_lines_are_one_message(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "microbenchmarks.jsonl"
    path.write_text(json.dumps(copy(1e9, 0.02)) + f"\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_microbenchmarks(tmp_path)
    assert str(caught.value).startswith(f"{path}:3: {problem}")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file, expected the microbenchmarks of a harness"):
        read_microbenchmarks(tmp_path)
    (tmp_path / "microbenchmarks.jsonl").write_text("\n")
    with pytest.raises(InputError, match="found an empty file"):
        read_microbenchmarks(tmp_path)


@pytest.mark.parametrize(
    ("harness", "plain"),
    [
        ({"quantity": "h2d_pinned", "size": 4096, "unit": "bytes"}, {"quantity": "h2d_pinned", "bytes": 4096}),
        ({"quantity": "duplex_pinned", "size": 4096}, {"quantity": "duplex", "bytes": 8192}),
        ({"quantity": "gemm", "size": [2, 3, 4]}, {"quantity": "gemm", "m": 2, "n": 3, "k": 4}),
        ({"quantity": "gpu_add", "size": 100}, {"quantity": "gpu_elementwise", "bytes": 1200}),
        ({"quantity": "gpu_adamw_fused", "size": 100}, {"quantity": "gpu_adam_fused", "elements": 100}),
        ({"quantity": "kernel_launch", "size": 1}, {"quantity": "launch"}),
        (
            {"quantity": "cpu_adam", "size": 100, "condition": "copies"},
            {"quantity": "cpu_adam", "elements": 100, "condition": "under dma"},
        ),
        (
            {"quantity": "h2d_pinned", "size": 100, "condition": "cpu_adam"},
            {"quantity": "h2d_pinned", "bytes": 100, "condition": "cpu busy"},
        ),
    ],
)
def test_the_harness_says_size_under_its_own_names(
    tmp_path: Path, harness: dict[str, Any], plain: dict[str, Any]
) -> None:
    both = write(tmp_path / "m.jsonl", *(row | {"seconds": [1.0, 2.0]} for row in (harness, plain)))
    first, second = read_microbenchmarks(both)
    assert first == second


@pytest.mark.parametrize("size", [0, -1, [1, 2], [1, 2, 0], []])
def test_wrong_sizes(tmp_path: Path, size: object) -> None:
    path = write(tmp_path / "m.jsonl", {"quantity": "gemm", "size": size, "seconds": [1]})
    with pytest.raises(InputError, match=r"m.jsonl:1: size: found .*, expected three numbers above 0, m, n and k"):
        read_microbenchmarks(path)
