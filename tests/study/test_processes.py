"""Workers work, end with a clear message, and leave nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from offsim import InputError
from offsim.study import processes
from offsim.study.processes import in_order, worker_processes
from tests.study.small_sweeps import die_elsewhere, small_sweep

CHILDREN = """
import os, time
from offsim.study import processes
processes.START_AFTER_S = 0
with processes.worker_processes(2, "") as workers:
    while workers.submit(os.getpid).result() == os.getpid():
        time.sleep(0.01)
    print(*{workers.submit(os.getpid).result() for _ in range(8)}, flush=True)
    workers.submit(time.sleep, 0.01).result()
    time.sleep(60)
"""


def start_processes(workers):
    while workers.submit(os.getpid).result() == os.getpid():
        time.sleep(0.01)


def test_little_work_is_done_here():
    with worker_processes(2, "") as workers:
        assert list(in_order(workers, abs, [-1, 2])) == [1, 2]
        assert workers.submit(os.getpid).result() == os.getpid()
        assert isinstance(workers.submit(int, "one").exception(), ValueError)
        assert not multiprocessing.active_children()


def test_one_process_is_this_one():
    with worker_processes(1, "") as workers:
        workers.submit(time.sleep, 2 * processes.START_AFTER_S).result()
        assert workers.submit(os.getpid).result() == os.getpid()
        assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_one_message(monkeypatch):
    monkeypatch.setattr(processes, "START_AFTER_S", 0)
    died = pytest.raises(InputError, match=r"^a worker process died \(out of memory\?\); try again$")
    with died, worker_processes(2, "try again") as workers:
        start_processes(workers)
        workers.submit(os._exit, 1).result()


def test_work_that_waits_as_a_worker_dies_is_dropped_quietly(monkeypatch):
    """The pool tells its futures one by one; what waits must not be cancelled meanwhile, or its thread fails."""

    def tell_slowly(future, error, tell=Future.set_exception):
        tell(future, error)
        time.sleep(0.01)

    monkeypatch.setattr(processes, "START_AFTER_S", 0)
    monkeypatch.setattr(Future, "set_exception", tell_slowly)
    with pytest.raises(InputError, match="a worker process died"), worker_processes(2, "") as workers:
        list(in_order(workers, die_elsewhere, [os.getpid()] * 200))
    assert not multiprocessing.active_children()


def test_a_worker_that_starts_as_another_dies_ends_too(monkeypatch):
    start = ProcessPoolExecutor._spawn_process

    def start_slowly(pool):
        known, pool._processes = pool._processes, {}
        start(pool)
        time.sleep(0.2)
        known.update(pool._processes)
        pool._processes = known

    monkeypatch.setattr(processes, "START_AFTER_S", 0)
    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", start_slowly)
    died = pytest.raises(InputError, match="a worker process died")
    with died, worker_processes(2, "") as workers:
        start_processes(workers)
        for work in [workers.submit(os._exit, 1), workers.submit(time.sleep, 60)]:
            work.result()
    assert not multiprocessing.active_children()


def test_workers_of_a_killed_process_end():
    process = subprocess.Popen([sys.executable, "-c", CHILDREN], stdout=subprocess.PIPE, text=True)
    workers = [int(text) for text in process.stdout.readline().split()]
    assert all(os.path.exists(f"/proc/{worker}") for worker in workers)
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while running := [worker for worker in workers if is_running(worker)]:
        assert time.monotonic() < until, running
        time.sleep(0.01)


def is_running(process):
    try:
        os.kill(process, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.2, 0.4, 0.8])
def test_an_interrupt_while_workers_start_is_quiet(after_s):
    code = CHILDREN.replace("with processes", "print(flush=True)\nwith processes")
    run = [
        sys.executable,
        "-c",
        f"from offsim.cli import main\ntry:\n    exec({code!r})\nexcept KeyboardInterrupt: pass",
    ]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    process.stdout.readline()
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""


def test_more_processes_than_any_machine_runs_are_refused():
    with pytest.raises(InputError, match="--jobs: found 100000000000000000000, expected 1 to 1024"):
        worker_processes(10**20, "").__enter__()


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_script_needs_no_guard(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import offsim\nprint(len(offsim.sweep({small_sweep()!r}, jobs=2)))\n")
    with script.open() as file:
        arguments, stdin = ([str(script)], None) if how == "file" else (["-"], file)
        run = subprocess.run([sys.executable, *arguments], stdin=stdin, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("6\n", "")
