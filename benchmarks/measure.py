"""Ratios: CPU time of a benchmark over that of a yardstick beside it, so that the machine's speed cancels.

CPU time of all threads and processes, which other programs on the machine lengthen far less than time by the wall.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.forkserver import _forkserver
from time import perf_counter
from typing import NamedTuple

import simpy

Act = Callable[[], object]
Check = Callable[..., "Measured"]
"""Of the fixture `check` (conftest.py)."""
TIMEOUTS = 10_000
BLOCK_S = 0.05
"""Benchmark and yardstick take turns for so long each, or for one repeat."""


class Yardstick(NamedTuple):
    """What benchmarks are compared with."""

    name: str
    act: Act
    pieces: int = 1


class Measured(NamedTuple):
    """The least of all repeats, of one piece."""

    ratio: float
    cpu_s: float
    wall_s: float


def timeouts() -> None:
    """The least that an event-driven simulation of so many activities does: a bare loop on SimPy."""
    env = simpy.Environment()

    def process() -> simpy.events.ProcessGenerator:
        for _ in range(TIMEOUTS):
            yield env.timeout(1.0)

    env.process(process())
    env.run()


def start_python(*arguments: str) -> None:
    # Compiled once, as an installation is: otherwise most of a start from this source tree is compiling it.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, *(arguments or ("-c", "pass"))], check=True, capture_output=True, env=environment)


TIMEOUT = Yardstick("bare SimPy timeouts", timeouts, TIMEOUTS)
PYTHON = Yardstick("starts of Python", start_python)


def measure(act: Act, pieces: int, yardstick: Yardstick, enough: Callable[[float, float], bool]) -> Measured:
    """Repeat `act`, of so many pieces, and the yardstick until `enough` of the ratio so far and the seconds passed."""
    begin = perf_counter()
    of_yardstick = cpu = wall = float("inf")
    while True:
        of_yardstick = min(of_yardstick, _least(yardstick.act)[0] / yardstick.pieces)
        cpu_now, wall_now = _least(act)
        cpu, wall = min(cpu, cpu_now / pieces), min(wall, wall_now / pieces)
        if enough(cpu / of_yardstick, perf_counter() - begin):
            return Measured(cpu / of_yardstick, cpu, wall)


def _least(act: Act) -> tuple[float, float]:
    """The least CPU time, and time by the wall, of a repeat."""
    cpu = wall = float("inf")
    until = perf_counter() + BLOCK_S
    while perf_counter() < until:
        begin, cpu_begin = perf_counter(), _cpu_s()
        act()
        wall = min(wall, perf_counter() - begin)
        _forkserver._stop()  # CPU time of processes counts once they have been waited for
        cpu = min(cpu, _cpu_s() - cpu_begin)
    return cpu, wall


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
