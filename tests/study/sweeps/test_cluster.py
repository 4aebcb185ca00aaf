"""The same table from a Dask cluster, also where a worker is killed under it."""

import os
import signal

import pytest

from offsim.cli import main
from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep
from tests.study.small_sweeps import long_sweep, small_sweep, stored_ids, written

distributed = pytest.importorskip("distributed")


@pytest.mark.slow
def test_a_cluster_with_a_worker_killed_under_it_gives_the_same_bytes(tmp_path):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        killed = []

        def kill(progress):
            if progress.simulated >= 30 and not killed:
                process = cluster.workers[0].process.pid
                os.kill(process, signal.SIGKILL)
                killed.append(process)

        plan = read_sweep(long_sweep())
        progress = run_sweep(plan, tmp_path / "dask", dask=cluster.scheduler_address, report=kill)
    assert killed
    assert progress.simulated == len(stored_ids(tmp_path / "dask")) == 150
    run_sweep(plan, tmp_path / "local", jobs=2)
    tables = [(tmp_path / where / "results.parquet").read_bytes() for where in ("dask", "local")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "foo://127.0.0.1:1", "nothing"])
def test_no_scheduler_is_one_message(address, tmp_path, capsys):
    file = written(small_sweep(), tmp_path / "sweep.yaml")
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dask", address]) == 2
    assert capsys.readouterr().err.startswith(f"Error: --dask '{address}': found no Dask scheduler: ")
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
