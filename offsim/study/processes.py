"""Worker processes of this machine: an executor of `concurrent.futures`, set up for simulations."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool, _ExecutorManagerThread
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from time import perf_counter
from types import ModuleType
from typing import ParamSpec, TypeVar

from offsim.inputs.errors import InputError

MAX_JOBS = 1024
START_AFTER_S = 0.1
"""Work of that long starts processes, which takes about half a second."""

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(jobs: int, advice: str) -> Iterator[Executor]:
    """Yield an executor of `jobs` processes, which drops what waits as the block ends.

    `submit` does the work itself until there is enough of it for processes and they have started; one is this process.
    InputError for more than MAX_JOBS, and where a process dies; that ends with `advice`.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise InputError(f"found {jobs}, expected 1 to {MAX_JOBS}", "--jobs")
    workers = _Workers(jobs)
    try:
        yield workers
    except BrokenProcessPool:
        raise InputError(f"a worker process died (out of memory?); {advice}") from None
    finally:
        workers.shutdown(cancel_futures=True)


def in_order(workers: Executor, work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Give all the work to `workers` and return its results in the order of `items`.

    `Executor.map` also cancels the rest as one fails. Where a process has died, that may break the pool's clean-up
    (Python 3.11: a traceback, and processes that stay); the end of `worker_processes` drops the rest safely.
    """
    futures = [workers.submit(work, item) for item in items]
    return (future.result() for future in futures)


class _Workers(Executor):
    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._here_s = 0.0
        self._pool: _Pool | None = None
        self._starting = threading.Thread(target=self._start, daemon=True)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._pool and not self._starting.is_alive():
            return self._pool.submit(fn, *args, **kwargs)
        begin = perf_counter()
        future = Future[T]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        self._here_s += perf_counter() - begin
        if not self._pool and self._jobs > 1 and self._here_s > START_AFTER_S:
            self._pool = _new_pool(self._jobs)
            self._starting.start()
        return future

    def _start(self) -> None:
        if self._pool:
            with suppress(RuntimeError):  # it was shut down meanwhile, or broke, as the next work will say
                wait([self._pool.submit(int)])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self._pool:
            self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _new_pool(jobs: int) -> _Pool:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["offsim.results.simulate", "offsim.programs.recording"])
    if "forkserver" in methods:
        resource_tracker.ensure_running()  # the server starts it otherwise, which unblocks Ctrl-C
        with _later_interrupts():
            forkserver.ensure_running()
    return _Pool(jobs, context, _prepare)


@contextmanager
def _later_interrupts() -> Iterator[None]:
    """Ctrl-C takes effect after the block. Processes that start in it have it blocked until they are set up."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pool(ProcessPoolExecutor):
    if not hasattr(_ExecutorManagerThread, "_terminate_broken"):
        # Python 3.11 finds a pool broken without the lock of `submit`, which may be starting a process just then. That
        # one would stay, and the program would wait for it for ever.
        _why_broken: bool

        @property
        def _broken(self) -> bool:
            return self._why_broken

        @_broken.setter
        def _broken(self, why: bool) -> None:
            with self._shutdown_lock:
                self._why_broken = why

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        # A new process would run the user's script once more, of which it needs nothing.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            with _later_interrupts():
                return super().submit(_collected, fn, *args, **kwargs)  # type: ignore[arg-type]
        finally:
            sys.modules["__main__"] = main


def _collected(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    gc.collect()
    return work(*args, **kwargs)


def _prepare() -> None:
    """Set up a worker: it ends with the process that started it, and at once where Ctrl-C reaches both."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # A simulation leaves cycles, all of them garbage at its end: to collect them once then, rather than often while it
    # runs, saves a fifth of its time.
    gc.disable()
    gc.freeze()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
