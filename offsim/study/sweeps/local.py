"""Worker processes on this machine: each has a pipe of its own, so that it is known what a worker died of."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from offsim.inputs.errors import InputError
from offsim.study.sweeps.worker import failure, simulate_point

Task = tuple[bytes, bytes]
"""Id and payload of a point."""

IN_FLIGHT = 2
"""Payloads that a worker holds: one that it works on and one for when it is done."""

MAX_DEATHS = 2
DIED = "the worker process died each time it simulated this point (out of memory?)"

_STARTED, _OUTCOME, _REFUSED = b"s", b"o", b"r"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    tasks: Iterable[Task], jobs: int, work: Callable[[bytes], bytes] = simulate_point
) -> Generator[Task, None, None]:
    """Simulate points in `jobs` processes; yield id and outcome of each as soon as it is there.

    Tasks are taken as workers become free. A point whose worker dies is tried again in a new one, and is an error as
    that one dies too.
    """
    pool = _Pool(iter(tasks), jobs, work)
    try:
        yield from pool.outcomes()
    finally:
        pool.stop()


@dataclass(eq=False)
class _Worker:
    process: Any
    pipe: Connection
    held: deque[Task] = field(default_factory=deque)
    started: bool = False


class _Pool:
    def __init__(self, tasks: Iterator[Task], jobs: int, work: Callable[[bytes], bytes]) -> None:
        self._tasks = tasks
        self._again: deque[Task] = deque()
        self._deaths: dict[bytes, int] = {}
        self._failed_starts = 0
        self._jobs = jobs
        self._work = work
        self._workers: list[_Worker] = []
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self._context.set_forkserver_preload([__name__])

    def outcomes(self) -> Iterator[Task]:
        while True:
            self._feed()
            if not self._workers:
                return
            for pipe in wait([worker.pipe for worker in self._workers]):
                worker = next(worker for worker in self._workers if worker.pipe is pipe)
                yield from self._hear(worker)

    def _feed(self) -> None:
        """Fill up the workers, the emptiest first, and start those that there is work for."""
        for level in range(IN_FLIGHT):
            for number in range(self._jobs):
                if number < len(self._workers) and len(self._workers[number].held) > level:
                    continue
                task = self._again.popleft() if self._again else next(self._tasks, None)
                if task is None:
                    for worker in [worker for worker in self._workers if not worker.held]:
                        self._end(worker)
                    return
                if number >= len(self._workers):
                    self._workers.append(self._start())
                worker = self._workers[number]
                worker.held.append(task)
                with suppress(OSError):  # it died: heard of at once
                    worker.pipe.send_bytes(task[1])

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        with _no_main_module():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hear(self, worker: _Worker) -> Iterator[Task]:
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        kind, content = message[:1], message[1:]
        if kind == _REFUSED:
            raise InputError(content.decode())
        if kind == _STARTED:
            worker.started = True
            self._failed_starts = 0
            return
        key, _ = worker.held.popleft()
        self._deaths.pop(key, None)
        yield key, content

    def _bury(self, worker: _Worker) -> Iterator[Task]:
        self._end(worker)
        if not worker.started:
            self._failed_starts += 1
            if self._failed_starts > 2 * self._jobs:
                raise InputError("worker processes end as they start")
        elif worker.held:
            key, _ = worker.held[0]
            self._deaths[key] = self._deaths.get(key, 0) + 1
            if self._deaths[key] == MAX_DEATHS:
                worker.held.popleft()
                del self._deaths[key]
                yield key, failure(DIED)
        self._again.extend(worker.held)

    def _end(self, worker: _Worker) -> None:
        """Let a worker go that has nothing to do, or that is dead."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()

    def stop(self) -> None:
        """Stop all workers at once, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._end(worker)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep new processes from running the user's script once more: they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(pipe: Connection, work: Callable[[bytes], bytes]) -> None:
    """Work on what comes through the pipe until it closes: when all is done, or its other end died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver is interrupted and stops its workers
    # A simulation leaves cycles, all of them garbage at its end: collecting them once then, rather than often while it
    # runs, saves a fifth of a point's time.
    gc.disable()
    gc.freeze()
    with suppress(EOFError, OSError):
        pipe.send_bytes(_STARTED)
        while True:
            gc.collect()
            payload = pipe.recv_bytes()
            try:
                answer = _OUTCOME + work(payload)
            except InputError as error:
                answer = _REFUSED + error.problem.encode()
            pipe.send_bytes(answer)
