"""How fast sweeps are and how much memory their driver takes; run with `pytest benchmarks/test_sweep.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pytest

from offsim.inputs.packaged import offsim_version
from offsim.study.sweeps.point import points, simulate_tasks
from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep
from tests.small_scenarios import scenario

DRIVER = """
import json, resource, sys
from pathlib import Path

from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep

done = run_sweep(read_sweep(json.loads(sys.argv[1])), Path(sys.argv[2]), jobs=2).simulated
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def hardware(count: int) -> dict[str, Any]:
    """The 20B model on 4 GPUs under two schedules, with as many links and CPUs."""
    axes = {
        "scheduler.name": ["zero3_offload", "deep_optimizer_states"],
        "hardware_changes.link.h2d_bytes_per_s": {"from": 1e10, "to": 1e11, "count": count // 10, "scale": "log"},
        "hardware_changes.host.adam_params_per_s": {"from": 1e9, "to": 4e9, "count": 5},
    }
    return {"base": "dos_20b_4xh100", "axes": axes}


def schedules(count: int) -> dict[str, Any]:
    """The 20B model on 4 GPUs with as many strides and shares of the CPU."""
    axes = {
        "scheduler.update_stride": {"from": 2, "to": 11, "step": 1},
        "scheduler.cpu_ratio": {"from": 0.6, "to": 1, "count": count // 10},
    }
    return {"base": "dos_20b_4xh100", "axes": axes}


def small(count: int) -> dict[str, Any]:
    """A model whose points take milliseconds."""
    axes = {
        "hardware_changes.link.h2d_bytes_per_s": {"from": 1e10, "to": 1e11, "count": count // 10, "scale": "log"},
        "scheduler.cpu_ratio": {"from": 0, "to": 1, "count": 10},
    }
    return {"base": scenario(), "axes": axes}


@pytest.mark.parametrize("over", [hardware, schedules])
@pytest.mark.parametrize("workers", ["processes", "Dask"])
def test_a_thousand_points_of_20b(
    over: Callable[[int], dict[str, Any]], workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with cluster() if workers == "Dask" else nullcontext() as address:
        begin = perf_counter()
        done = run_sweep(read_sweep(over(1000)), tmp_path / "out", jobs=2, dask=address).simulated
        seconds = perf_counter() - begin
    assert done == 1000
    with capsys.disabled():
        print(f"  1,000 points of 20B over {over.__name__} on 2 {workers}: {seconds:.1f} s")


@contextmanager
def cluster() -> Iterator[str]:
    """Yield the address of a cluster of two workers, which have imported offsim."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        client.run(import_module, "offsim.study.sweeps.point")
        yield local.scheduler_address


def test_share_of_a_point_that_is_not_simulating(capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_sweep(hardware(100))
    begin = process_time()
    tasks = [point.task for point in points(plan)]
    made = process_time()
    for task in tasks:
        simulate_tasks(offsim_version(), [task] if task else [])
    simulated = process_time()
    with capsys.disabled():
        driver, worker = (1e3 * t / len(tasks) for t in (made - begin, simulated - made))
        print(f"  CPU time of a point of 20B: {driver:.2f} ms in the driver, {worker:.2f} ms in a worker")


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_memory_of_the_driver(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [sys.executable, "-c", DRIVER, json.dumps(small(count)), str(tmp_path / "out")]
    begin = perf_counter()
    done, kilobytes = map(int, subprocess.run(arguments, check=True, capture_output=True).stdout.split())
    seconds = perf_counter() - begin
    assert done == count
    with capsys.disabled():
        print(f"  {count:,} points of a small model: driver {kilobytes / 1024:.0f} MiB at most, {seconds:.1f} s")
