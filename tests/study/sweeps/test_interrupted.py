"""Whatever ends a sweep early, --resume repeats nothing that is finished and ends with the same table."""

import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import offsim
from offsim import InputError
from offsim.cli import main
from offsim.study import processes
from offsim.study.sweeps.store import open_store
from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep
from tests.study.small_sweeps import long_sweep, small_sweep, stored_ids, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of `long_sweep`, not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "results"
    run_sweep(read_sweep(long_sweep()), folder, jobs=2)
    assert len(stored_ids(folder)) == 150
    return folder


def table(folder):
    return (folder / "results.parquet").read_bytes()


def command(folder, *options):
    file = written(long_sweep(), folder / "sweep.yaml")
    return [sys.executable, "-m", "offsim", "sweep", str(file), "--out", str(folder / "out"), "--jobs", "2", *options]


def start(folder):
    """Start a sweep as a process of its own and wait until some points are finished."""
    process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True)
    log = folder / "out" / "points.sqlite-wal"
    while not log.exists() or log.stat().st_size < 200_000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def resumed(folder, capsys):
    """Resume; return how many points were simulated."""
    assert main(command(folder, "--resume")[3:]) == 0
    head = capsys.readouterr().out.split("\n")[0]
    assert head.startswith("150 points: ")
    return int(head.split()[2])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_driver_is_ended_in_mid_sweep(sent, whole, tmp_path, capsys):
    process = start(tmp_path)
    process.send_signal(sent)
    _, errors = process.communicate()
    out = tmp_path / "out"
    before = stored_ids(shutil.copytree(out, tmp_path / "copy"))
    assert 10 <= len(before) < 150
    assert not (out / "results.parquet").exists()
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume continues" in errors
        assert "Traceback" not in errors
    assert resumed(tmp_path, capsys) == 150 - len(before)
    assert stored_ids(out)[: len(before)] == before
    assert table(out) == table(whole)


def test_a_worker_is_killed_in_mid_sweep(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "START_AFTER_S", 0)

    killed = []

    def kill(progress):
        if progress.simulated > 20 and not killed:
            while not (workers := multiprocessing.active_children()):
                time.sleep(0.01)
            os.kill(workers[0].pid, signal.SIGKILL)
            killed.append(workers[0])

    with pytest.raises(
        InputError, match=r"a worker process died \(out of memory\?\); what is finished is kept, --resume"
    ):
        run_sweep(read_sweep(long_sweep()), tmp_path / "out", jobs=2, report=kill)
    before = len(stored_ids(tmp_path / "out"))
    assert 20 < before < 150
    assert run_sweep(read_sweep(long_sweep()), tmp_path / "out", jobs=2, resume=True).simulated == 150 - before
    assert table(tmp_path / "out") == table(whole)


def test_a_torn_end_is_simulated_again(whole, tmp_path, capsys):
    """As after a power cut: the last transactions are not whole."""
    process = start(tmp_path)
    process.kill()
    process.communicate()
    log = tmp_path / "out" / "points.sqlite-wal"
    os.truncate(log, log.stat().st_size - 5_000)
    assert 0 < resumed(tmp_path, capsys) < 150
    assert table(tmp_path / "out") == table(whole)


def test_a_damaged_store_is_named(tmp_path):
    (tmp_path / "points.sqlite").write_bytes(b"?" * 5_000)
    with pytest.raises(InputError, match=r"points\.sqlite: damaged \(file is not a database\)"):
        offsim.sweep(small_sweep(), out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "outcome",
    [b"5", b"null", b"{", b"{}", b'{"fits": "maybe"}', b'{"fits": true, "limits_s": 5}', b'{"fits": true, "gpus": []}'],
)
def test_an_outcome_that_is_none_is_named(outcome, tmp_path):
    offsim.sweep(small_sweep(), out=tmp_path, jobs=1)
    with closing(sqlite3.connect(tmp_path / "points.sqlite")) as connection, connection:
        connection.execute("UPDATE points SET outcome = ? WHERE rowid = 3", (outcome,))
    with pytest.raises(InputError, match=r"points\.sqlite: damaged \(an outcome is none of a simulation: "):
        offsim.sweep(small_sweep(), out=tmp_path, jobs=1, resume=True)


@pytest.mark.parametrize("about", ["[]", "{}", "5", '{"axes": 5}', '{"axes": ["nothing"]}', "{"])
def test_a_table_that_no_sweep_wrote_is_named(about, tmp_path):
    schema = pa.schema([("scenario", pa.string())], metadata={"offsim": about})
    pq.write_table(pa.table({"scenario": ["small"]}, schema=schema), tmp_path / "results.parquet")
    with pytest.raises(InputError, match=r"results\.parquet: cannot be read: "):
        offsim.study.read_results(tmp_path)


def test_a_full_disk_is_one_message_and_nothing_is_lost(whole, tmp_path, capsys):
    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    run = subprocess.run(command(tmp_path), capture_output=True, text=True, preexec_fn=small_files_only, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "cannot be written: " in run.stderr
    assert "; what is finished is kept, --resume continues" in run.stderr
    before = stored_ids(tmp_path / "out")
    assert len(before) > 10
    assert resumed(tmp_path, capsys) == 150 - len(before)
    assert table(tmp_path / "out") == table(whole)


def test_a_second_driver_stops(tmp_path):
    out = tmp_path / "out"
    with open_store(out, ["small"], resume=False):
        run = subprocess.run(command(tmp_path, "--resume"), capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert run.stderr == f"Error: {out}: another sweep is writing to this folder\n"
    assert len(offsim.sweep(small_sweep(), out=out, jobs=1, resume=True)) == 6


def test_changed_axes_use_what_is_there(tmp_path):
    def simulated(sweep, **options):
        return run_sweep(read_sweep(sweep), tmp_path / "out", jobs=1, **options).simulated

    assert simulated(small_sweep()) == 6
    strides = small_sweep(scheduler__update_stride=[4, 2])
    assert simulated(strides, resume=True) == 2
    changed = offsim.study.read_results(tmp_path / "out")
    assert list(changed["scheduler.update_stride"].dropna()) == [4, 4, 2, 2]
    assert simulated(small_sweep(training__micro_batch=[1]), resume=True) == 0
    assert simulated(small_sweep(training__micro_batch=[1, 2]), resume=True) == 6


def test_a_table_of_an_older_sweep_is_not_taken_for_this_ones(tmp_path):
    run_sweep(read_sweep(small_sweep()), tmp_path, jobs=1)
    with open_store(tmp_path, ["small"], resume=True):
        pass
    with pytest.raises(InputError, match="the sweep is not finished"):
        offsim.study.read_results(tmp_path)


def test_folders_of_others_are_refused(tmp_path):
    other = {**small_sweep(), "base": "dos_20b_4xh100"}
    offsim.sweep(small_sweep(), out=tmp_path / "out", jobs=1)
    with pytest.raises(InputError, match="results of a sweep of small; --resume continues it, another sweep needs"):
        offsim.sweep(other, out=tmp_path / "out")
    with pytest.raises(InputError, match="expected those of dos_20b_4xh100, which --resume could continue"):
        offsim.sweep(other, out=tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="files that are no sweep's, such as 'out'"):
        offsim.sweep(other, out=tmp_path)
    with pytest.raises(InputError, match="missing folder"):
        offsim.sweep(other, out=tmp_path / "a" / "b")
    with pytest.raises(InputError, match=r"found no results\.parquet"):
        offsim.study.read_results(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
