"""Microbenchmarks give back the constants that they were made with; what they leave open is left out or a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offsim.calibration.microbenchmarks.estimate import Estimate
from offsim.calibration.microbenchmarks.estimates import fit_microbenchmarks
from offsim.calibration.microbenchmarks.rows import read_microbenchmarks
from tests.calibration.synthetic_measurements import THREADS, TRUTH, harness_folder, row, write

REAL = Path(__file__).with_name("two_core_vm.jsonl")
"""Of a virtual machine with two cores, 32 MiB of last-level cache and no GPU."""


def estimates(path: Path, threads: float = THREADS) -> dict[str, Estimate]:
    return {e.name: e for e in fit_microbenchmarks(read_microbenchmarks(path), threads, str(path))}


def test_known_constants_come_back(tmp_path: Path) -> None:
    missed = []
    for seed in range(3):
        found = estimates(harness_folder(tmp_path / str(seed), seed))
        assert set(found) == set(TRUTH)
        for name, truth in TRUTH.items():
            interval = found[name].interval
            assert interval.value == pytest.approx(truth, rel=0.07), name
            assert interval.spread < 1.3
            missed += [name] if not interval.low <= truth <= interval.high else []
    assert len(missed) <= 6, missed  # of 54, 3 are promised; 7 or more happen twice in 100 times
    assert found["kernel_launch_s"].samples == 8
    assert found["link.h2d_bytes_per_s"].origin == "56 samples of 2"


def cpu(quantity: str, rates: dict[int, float], size: float = 1e8, **more: Any) -> list[dict[str, Any]]:
    """Rows with these elements per second, by threads."""
    return [
        row(quantity, size, size / rate, size / rate * 1.01, threads=threads, clock="host", **more)
        for threads, rate in rates.items()
    ]


def copy(size: float, seconds: float, quantity: str = "h2d_pinned", **more: Any) -> dict[str, Any]:
    return row(quantity, size, seconds, seconds * 1.01, **more)


def both_ways(*copies: tuple[float, float]) -> list[dict[str, Any]]:
    return [copy(*one, f"{way}_pinned") for way in ("h2d", "d2h") for one in copies]


class TestLink:
    @pytest.mark.parametrize("copies", [[(1e9, 0.02)], [(1e9, 0.02), (2e9, 0.0404), (4e9, 0.0792)]])
    def test_large_copies_do_not_tell_a_latency(self, tmp_path: Path, copies: list[tuple[float, float]]) -> None:
        found = estimates(write(tmp_path / "m.jsonl", *both_ways(*copies)))
        assert list(found) == ["link.h2d_bytes_per_s", "link.d2h_bytes_per_s"]
        assert found["link.h2d_bytes_per_s"].interval.value == pytest.approx(5e10, rel=0.01)

    def test_duplex_counts_both_directions(self, tmp_path: Path) -> None:
        found = estimates(write(tmp_path / "m.jsonl", copy(1e9, 0.02, "duplex_pinned")))
        assert found["link.duplex_bytes_per_s"].interval.value == pytest.approx(1e11, rel=0.01)

    def test_gradients_are_flushed_into_fresh_pages(self, tmp_path: Path) -> None:
        rows = [copy(1e9, 0.1, "d2h_pageable"), copy(1e9, 0.4, "d2h_pageable_fresh")]
        found = estimates(write(tmp_path / "m.jsonl", *rows))
        assert found["link.pageable_d2h_bytes_per_s"].interval.value == pytest.approx(2.5e9, rel=0.01)


def test_sizes_of_caches_and_launches_tell_no_rate(tmp_path: Path) -> None:
    rows = [row("gemm", [256] * 3, 1e-5), row("gpu_add", 1e6, 1e-5), row("gpu_adamw_fused", 1e6, 1e-5)]
    rows += [*both_ways((2**20, 3e-5)), copy(2**20, 1e-4, "h2d_pageable"), copy(2**20, 3e-5, "duplex_pinned")]
    rows += [*cpu("cpu_adam", {4: 1e10}, size=1e7), *cpu("host_copy", {4: 1e10}, size=1e7)]
    assert not estimates(write(tmp_path / "m.jsonl", *rows))


class TestCpuRates:
    FIELD = "host.adam_params_per_s"

    def found(self, tmp_path: Path, threads: float) -> Estimate:
        rows = cpu("cpu_adam", {8: 3e9, 1: 4e8, 4: 1.6e9}) + cpu("cpu_adam", {8: 2e10}, size=1e6)
        return estimates(write(tmp_path / "m.jsonl", *rows), threads)[self.FIELD]

    @pytest.mark.parametrize(
        ("threads", "rate", "note"),
        [
            (0.5, 4e8, "1 threads"),
            (4, 1.6e9, "4 threads"),
            (8, 3e9, "8 threads"),
            (46, 3e9, "8 threads, where the base's ranks have 46"),
        ],
    )
    def test_rate_of_the_threads_measured(self, tmp_path: Path, threads: float, rate: float, note: str) -> None:
        found = self.found(tmp_path, threads)
        assert found.interval.value == pytest.approx(rate, rel=0.006)
        assert found.interval.spread < 1.05
        assert found.origin == f"2 samples of m.jsonl; {note}"

    @pytest.mark.parametrize(("threads", "cores"), [(4, None), (8, None), (46, 8)])
    def test_fewer_threads_than_the_bases_ranks_have_are_what_a_rank_has(
        self, tmp_path: Path, threads: float, cores: float | None
    ) -> None:
        rows = cpu("cpu_adam", {8: 3e9, 1: 4e8})
        found = estimates(write(tmp_path / "m.jsonl", *rows), threads).get("host.cores_per_rank")
        assert (found and found.interval.value) == cores

    def test_between_what_was_measured(self, tmp_path: Path) -> None:
        found = self.found(tmp_path, 6)
        straight, proportional = 2.3e9, 2.4e9
        assert straight < found.interval.value < proportional
        assert found.interval.low <= straight * 1.001
        assert found.interval.high >= proportional * 0.999
        assert found.origin == "4 samples of m.jsonl; between 4 and 8 threads"

    def test_the_schedules_downcast_scales_in_a_second_pass(self, tmp_path: Path) -> None:
        rows = cpu("cpu_downcast", {8: 1e10}) + cpu("cpu_downcast_fresh", {8: 2e9})
        found = estimates(write(tmp_path / "m.jsonl", *rows), 8)
        assert found["host.downcast_params_per_s"].interval.value == pytest.approx(6e9, rel=0.01)
        assert found["host.downcast_params_per_s"].source == "derived"
        assert found["host.fresh_downcast_params_per_s"].interval.value == pytest.approx(2e9, rel=0.01)
        assert found["host.fresh_downcast_params_per_s"].source == "measured"


class TestHostMemory:
    ADAM = cpu("cpu_adam", {4: 2e9, 8: 3.5e9})
    COPIES = copy(1e9, 0.04, "duplex_pinned", condition="cpu_adam")

    def found(self, tmp_path: Path, *rows: dict[str, Any]) -> Estimate:
        return estimates(write(tmp_path / "m.jsonl", *rows), 8)["host.memory_bytes_per_s"]

    def test_is_the_value_where_fewer_threads_reach_as_much(self, tmp_path: Path) -> None:
        rows = cpu("host_add", {4: 9.8e9, 8: 1e10}) + cpu("host_copy", {4: 1e10, 8: 1.3e10})
        found = self.found(tmp_path, *rows)
        assert not found.at_least
        assert found.interval.value == pytest.approx(12e10, rel=0.01)
        assert found.note == "host_add with 8 threads"

    def test_is_a_bound_where_more_threads_reach_more(self, tmp_path: Path) -> None:
        found = self.found(tmp_path, *cpu("host_copy", {4: 1e10, 8: 1.3e10}))
        assert found.at_least
        assert found.interval.value == pytest.approx(8 * 1.3e10, rel=0.01)
        assert found.origin == "a lower bound; 2 samples of m.jsonl; host_copy with 8 threads"

    def test_is_at_least_what_adam_alone_moves(self, tmp_path: Path) -> None:
        found = self.found(tmp_path, *self.ADAM, *cpu("host_copy", {8: 1e10}))
        assert found.at_least
        assert found.interval.value == pytest.approx(28 * 3.5e9, rel=0.01)

    @pytest.mark.parametrize(("beside", "bound"), [(2.5e9, False), (3.45e9, True)])
    def test_is_what_adam_and_copies_reach_that_slow_each_other(
        self, tmp_path: Path, beside: float, bound: bool
    ) -> None:
        slowed = cpu("cpu_adam", {8: beside}, condition="copies")
        found = self.found(tmp_path, *self.ADAM, *slowed, self.COPIES, *cpu("host_copy", {8: 1e9}))
        assert found.at_least == bound
        assert found.interval.value == pytest.approx(28 * beside + 5e10, rel=0.01)
        assert found.note == "cpu_adam with 8 threads, and copies"

    def test_is_full_where_copies_cost_adam_more_than_they_move(self, tmp_path: Path) -> None:
        slowed = cpu("cpu_adam", {8: 1.5e9}, condition="copies")
        found = self.found(tmp_path, *self.ADAM, *slowed, self.COPIES)
        assert not found.at_least
        assert found.interval.value == pytest.approx(28 * 3.5e9, rel=0.01)


def test_a_machine_without_gpu_says_nothing_of_one(tmp_path: Path) -> None:
    launches = [row(name, 1, 2e-4, 2e-4, clock="host") for name in ("kernel_launch", "layer_forward_launch")]
    products = [row("gemm", [n] * 3, *[1e-5 + 2 * n**3 / 1e14] * 5) for n in (256, 1024, 4096)]
    found = estimates(write(tmp_path / "gpu.jsonl", *launches, *products))
    assert set(found) >= {"gpu.matrix_flops_per_s", "kernel_launch_s", "host.module_launch_s"}
    assert found["host.module_launch_s"].at_least
    on_cpu = [product | {"clock": "host"} for product in products]
    assert not estimates(write(tmp_path / "cpu.jsonl", *launches, *on_cpu))


def test_a_real_machine_without_gpu() -> None:
    """Rates are those of 1e8 elements with both threads; 1e6 run up to five times as fast, from cache."""
    found = estimates(REAL, 2)
    cases = [case for case in read_microbenchmarks(REAL) if (case.amount, case.threads) == (1e8, 2)]
    medians = {case.quantity: case.amount / case.median for case in cases}
    expected = {
        "host.adam_params_per_s": medians["cpu_adam"],
        "host.scale_params_per_s": medians["cpu_scale"],
        "host.upcast_params_per_s": medians["cpu_upcast"],
        "host.downcast_params_per_s": 0.6 * medians["cpu_downcast"],
        "host.fresh_downcast_params_per_s": medians["cpu_downcast_fresh"],
        "host.memory_bytes_per_s": 28 * medians["cpu_adam"],
    }
    assert {name: estimate.interval.value for name, estimate in found.items()} == pytest.approx(expected, rel=1e-5)
    assert all(estimate.interval.spread < 1.1 for estimate in found.values())
    assert found["host.memory_bytes_per_s"].at_least
