"""One microbenchmark: its row, its clocks, how often it is repeated, and the arrays that it works on."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .device import Device, Stream

Work = Callable[[], object]
Timer = Callable[[], float]
"""Does the work once, or a few times, and returns the seconds of one."""
Key = tuple[str, str, int, str]
"""Quantity, size, threads and condition: they tell a microbenchmark from all others."""
IDLE, DURING_CPU_ADAM, DURING_COPIES = "idle", "cpu_adam", "copies"
"""Conditions: nothing else runs; CPU Adam on all threads; copies in both directions without pause."""


@dataclass(frozen=True)
class Measurement:
    """One row of `microbenchmarks.jsonl`."""

    quantity: str
    size: int | tuple[int, int, int]
    unit: str
    threads: int
    condition: str
    clock: str
    prepare: Callable[[], Timer] = field(repr=False)

    def row(self, seconds: list[float]) -> dict[str, Any]:
        """Return the row for these repetitions."""
        named = ("quantity", "size", "unit", "threads", "condition", "clock")
        return {name: getattr(self, name) for name in named} | {"seconds": seconds}

    def rate(self, seconds: list[float]) -> str:
        """Return the median as a rate, to be shown."""
        median = statistics.median(seconds)
        if isinstance(self.size, tuple):
            return f"{2 * math.prod(self.size) / median / 1e12:.3g} TFLOP/s"
        if self.unit == "launches":
            return f"{median * 1e6:.3g} us"
        return f"{self.size / median / 1e9:.3g} G{'B' if self.unit == 'bytes' else 'elements'}/s"

    def __str__(self) -> str:
        size = " x ".join(map(str, self.size)) if isinstance(self.size, tuple) else f"{self.size:.3g}"
        return f"{self.quantity}, {size} {self.unit}, {self.threads} threads, {self.condition}"


def key_of(row: dict[str, Any]) -> Key:
    """Return the key of a row."""
    return row["quantity"], json.dumps(row["size"]), row["threads"], row["condition"]


def repeat(timer: Timer, seconds: float, fewest: int, most: int) -> list[float]:
    """Warm up twice, then measure for so many seconds, within these counts."""
    timer()
    timer()
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < fewest or (len(found) < most and time.perf_counter() - start < seconds):
        found.append(timer())
    return found


def by_clock(work: Work, synchronize: Callable[[], None] = lambda: None) -> float:
    """Seconds of the host's clock until the work is done."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def by_events(stream: Stream, work: Work, calls: int) -> float:
    """Seconds of the device per call. The stream is held back until all is enqueued, so launches are not in it."""
    torch.cuda.synchronize()
    with stream.use():
        torch.cuda._sleep(5_000_000)  # cycles: about 3 ms
        start = stream.mark()
        for _ in range(calls):
            work()
        end = stream.mark()
    end.synchronize()
    return start.seconds_until(end) / calls


class Bench:
    """The device, the settings, and the arrays of the group of measurements that runs now."""

    def __init__(self, device: Device, threads: int, quick: bool) -> None:
        self.device, self.threads, self.quick = device, threads, quick
        self._arrays: dict[object, Any] = {}
        self._background: dict[str, Work] = {}

    def hold(self, group: object, build: Callable[[], Any]) -> Any:
        """Return the arrays of a group of measurements; those of the group before are let go first."""
        if group not in self._arrays:
            self.let_go()
            self._arrays[group] = build()
        return self._arrays[group]

    def background(self, condition: str, build: Callable[[], Work]) -> Work:
        """Return the work of a condition; its arrays are held for as long as those of the group."""
        if condition not in self._background:
            self._background[condition] = build()
        return self._background[condition]

    def let_go(self) -> None:
        """Free all arrays."""
        self._arrays.clear()
        self._background.clear()
        self.device.release()


def largest_that_fits(wanted: int, bytes_per_element: float, free_bytes: int) -> int:
    """Return the wanted elements, divided by 10 until they take at most a quarter of the free memory."""
    while wanted > 1000 and wanted * bytes_per_element > free_bytes / 4:
        wanted //= 10
    return wanted
