"""How fast sweeps are and how much memory their driver takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from benchmarks.measure import Check
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


AXES: dict[str, dict[str, Any]] = {
    "hardware": {
        "hardware_changes.link.h2d_bytes_per_s": {"from": 1e10, "to": 1e11, "count": 100, "scale": "log"},
        "hardware_changes.host.memory_bytes_per_s": [f"x{factor}" for factor in range(1, 11)],
    },
    "schedules": {
        "scheduler.name": ["zero3_offload", "deep_optimizer_states"],
        "scheduler.update_stride": {"from": 2, "to": 10, "count": 9},  # of the second alone
        "scheduler.cpu_ratio": {"from": 0.6, "to": 1, "count": 100},
    },
}
"""A thousand points each."""


def small(count: int) -> dict[str, Any]:
    """A model whose points take milliseconds."""
    axes = {
        "hardware_changes.link.h2d_bytes_per_s": {"from": 1e10, "to": 1e11, "count": count // 10, "scale": "log"},
        "scheduler.cpu_ratio": {"from": 0, "to": 1, "count": 10},
    }
    return {"base": scenario(), "axes": axes}


def hardware(count: int) -> dict[str, Any]:
    """The 20B model on 4 GPUs of other hardware."""
    axes = {
        "hardware_changes.link.h2d_bytes_per_s": {"from": 1e10, "to": 1e11, "count": count // 100, "scale": "log"},
        "hardware_changes.host.memory_bytes_per_s": {"from": 1e11, "to": 1e12, "count": 100, "scale": "log"},
    }
    return {"base": "dos_20b_4xh100", "axes": axes}


@pytest.mark.parametrize("over", AXES)
def test_point_of_a_thousand(check: Check, tmp_path_factory: pytest.TempPathFactory, over: str) -> None:
    """Of the 20B model on 4 GPUs, on two processes."""
    sweep = read_sweep({"base": "dos_20b_4xh100", "axes": AXES[over]})

    def run() -> None:
        assert run_sweep(sweep, tmp_path_factory.mktemp("sweep") / "out", jobs=2).simulated == 1000

    check(run, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("over", AXES)
def test_dask(tmp_path: Path, capsys: pytest.CaptureFixture[str], over: str) -> None:
    """A thousand points of the 20B model on two workers of Dask."""
    with cluster() as address:
        begin = perf_counter()
        done = run_sweep(read_sweep({"base": "dos_20b_4xh100", "axes": AXES[over]}), tmp_path / "out", dask=address)
        seconds = perf_counter() - begin
    assert done.simulated == 1000
    with capsys.disabled():
        print(f"  1,000 points over {over} on 2 workers of Dask: {seconds:.1f} s")


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


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "count"), [(small, 1_000), (small, 20_000), (hardware, 1_000), (hardware, 100_000)])
def test_memory_of_the_driver(
    plan: Callable[[int], dict[str, Any]], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [sys.executable, "-c", DRIVER, json.dumps(plan(count)), str(tmp_path / "out")]
    begin = perf_counter()
    done, kilobytes = map(int, subprocess.run(arguments, check=True, capture_output=True).stdout.split())
    seconds = perf_counter() - begin
    assert done == count
    with capsys.disabled():
        print(f"  {count:,} points of {plan.__name__}: driver {kilobytes / 1024:.0f} MiB at most, {seconds:.1f} s")
