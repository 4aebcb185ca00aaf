"""Whatever ends a sweep early, --resume repeats nothing that is finished and ends with the same table."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

import offsim
from offsim import InputError
from offsim.cli import main
from offsim.study.sweeps.folder import claim
from offsim.study.sweeps.sweep import run_sweep
from offsim.study.sweeps.sweep_file import read_sweep
from tests.study.small_sweeps import journal_ids, long_sweep, small_sweep, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of `long_sweep`, not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "results"
    run_sweep(read_sweep(long_sweep()), folder, jobs=2)
    assert len(set(journal_ids(folder))) == len(journal_ids(folder)) == 150
    return folder


def table(folder):
    return (folder / "results.parquet").read_bytes()


def command(folder, *options):
    file = written(long_sweep(), folder / "sweep.yaml")
    return [sys.executable, "-m", "offsim", "sweep", str(file), "--out", str(folder / "out"), "--jobs", "2", *options]


def start(folder):
    """Start a sweep as a process of its own and wait until some points are finished."""
    process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True)
    journal = folder / "out" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
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
    before = journal_ids(out)
    assert 20 <= len(before) < 150
    assert not (out / "results.parquet").exists()
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume continues" in errors
        assert "Traceback" not in errors
    assert resumed(tmp_path, capsys) == 150 - len(before)
    after = journal_ids(out)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == 150
    assert table(out) == table(whole)


def test_workers_are_killed_in_mid_sweep(whole, tmp_path):
    killed = []

    def kill(progress):
        if progress.simulated in (20, 60, 100):
            worker = multiprocessing.active_children()[0]
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    progress = run_sweep(read_sweep(long_sweep()), tmp_path / "out", jobs=2, report=kill)
    assert len(set(killed)) == 3
    assert progress.simulated == 150
    assert table(tmp_path / "out") == table(whole)


def test_a_torn_last_line_is_simulated_again(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:120]) + lines[120][:100])
    assert resumed(tmp_path, capsys) == 30
    assert table(tmp_path / "out") == table(whole)


def test_a_damaged_line_is_named(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out")
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"?" + lines[1][1:], *lines[2:]]))
    with pytest.raises(InputError, match="found a damaged line") as raised:
        offsim.sweep(long_sweep(), out=folder, resume=True)
    assert raised.value.where == f"{journal}:2"


def test_a_full_disk_is_one_message_and_nothing_is_lost(whole, tmp_path, capsys):
    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    run = subprocess.run(command(tmp_path), capture_output=True, text=True, preexec_fn=small_files_only, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "cannot be written: File too large; what is finished is kept, --resume continues" in run.stderr
    before = journal_ids(tmp_path / "out")
    assert len(before) > 10
    assert (tmp_path / "out" / "journal.jsonl").read_bytes().endswith(b"\n")
    assert resumed(tmp_path, capsys) == 150 - len(before)
    assert table(tmp_path / "out") == table(whole)


def test_a_second_driver_stops(tmp_path):
    plan = read_sweep(small_sweep())
    out = tmp_path / "out"
    with claim(out, plan.content, resume=False):
        run = subprocess.run(command(tmp_path, "--resume"), capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert run.stderr == f"Error: {out}: another sweep is writing to this folder\n"
    assert len(offsim.sweep(small_sweep(), out=out, jobs=1)) == 6


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
    with claim(tmp_path, read_sweep(long_sweep()).content, resume=True):
        pass
    with pytest.raises(InputError, match="was changed since and is not finished"):
        offsim.study.read_results(tmp_path)


def test_folders_of_others_are_refused(tmp_path):
    other = {**small_sweep(), "base": "dos_20b_4xh100"}
    offsim.sweep(small_sweep(), out=tmp_path / "out", jobs=1)
    with pytest.raises(InputError, match="results of another sweep"):
        offsim.sweep(other, out=tmp_path / "out")
    with pytest.raises(InputError, match="which --resume could continue"):
        offsim.sweep(other, out=tmp_path / "out", resume=True)
    with pytest.raises(InputError, match="files that are no sweep's, such as 'out'"):
        offsim.sweep(other, out=tmp_path)
    with pytest.raises(InputError, match="missing folder"):
        offsim.sweep(other, out=tmp_path / "a" / "b")
    with pytest.raises(InputError, match=r"found no sweep\.json"):
        offsim.study.read_results(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
