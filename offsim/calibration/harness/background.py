"""Work that a background thread repeats while kernels and copies are measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from .adam import fused_adam
from .device import Device
from .measurement import DURING_CPU_ADAM, Bench, Work


@contextmanager
def running(work: Work) -> Iterator[None]:
    """Repeat the work on a thread of its own, until the block ends."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def background_work(bench: Bench, condition: str) -> Work:
    """Return the work that a condition names."""
    build = _cpu_adam if condition == DURING_CPU_ADAM else _copies
    return bench.background(condition, partial(build, bench.device, bench.quick))


def _cpu_adam(device: Device, quick: bool) -> Work:
    """CPU Adam on all threads, on arrays that no cache holds."""
    elements = 2_000_000 if quick else 50_000_000
    master, gradient, momentum, variance = (torch.full((elements,), 0.01) for _ in range(4))
    return partial(fused_adam, master, gradient, momentum, variance, 1)


def _copies(device: Device, quick: bool) -> Work:
    """Pinned copies in both directions."""
    size = 64 * 2**20
    host = [device.host(size, torch.uint8) for _ in range(2)]
    on_gpu = [device.empty(size, torch.uint8) for _ in range(2)]
    up, down = device.stream(), device.stream()
    done = [torch.cuda.Event(blocking=True) for _ in range(2)]  # a spinning wait would take a core

    def copy() -> None:
        for _ in range(4):
            with up.use():
                on_gpu[0].copy_(host[0], non_blocking=True)
            with down.use():
                host[1].copy_(on_gpu[1], non_blocking=True)
        for event, stream in zip(done, (up, down), strict=True):
            event.record(stream.cuda_stream)
        for event in done:
            event.synchronize()

    return copy
