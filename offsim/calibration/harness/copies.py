"""Copies between host and GPU, pinned and pageable, while the CPU is idle and while it is busy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from .device import Device
from .machine import available_host_bytes
from .measurement import DURING_CPU_ADAM, IDLE, Bench, Measurement, Timer, Work, by_clock, by_events

_CLOCKS = {
    "h2d_pinned": "device",
    "d2h_pinned": "device",
    "duplex_pinned": "host",
    "h2d_pageable": "host",
    "d2h_pageable": "host",
    "d2h_pageable_fresh": "host",
}
"""Quantity -> clock."""


def copies(bench: Bench) -> Iterator[Measurement]:
    """Copies of all sizes of which several arrays fit."""
    sizes = [2**12, 2**16, 2**20] if bench.quick else [2**12, 2**16, 2**20, 2**24, 2**26, 2**28, 2**30]
    free = min(bench.device.free_bytes(), available_host_bytes())
    sizes = [size for size in sizes if 8 * size <= free]
    for condition in (IDLE, DURING_CPU_ADAM):
        for size in sizes:
            for quantity, clock in _CLOCKS.items():
                prepare = partial(_prepare, bench, quantity, size, sizes[-1])
                yield Measurement(quantity, size, "bytes", bench.threads, condition, clock, prepare)


def _prepare(bench: Bench, quantity: str, size: int, largest: int) -> Timer:
    torch.set_num_threads(bench.threads)
    device = bench.device
    arrays = bench.hold("copies", partial(_arrays, device, largest))
    pinned, other, pageable, on_gpu, out_gpu = (array[:size] for array in arrays)
    down, up = device.stream(), device.stream()
    calls = 10 if size <= 2**20 else 1

    def duplex() -> None:
        for _ in range(calls):
            with up.use():
                on_gpu.copy_(pinned, non_blocking=True)
            with down.use():
                other.copy_(out_gpu, non_blocking=True)

    blocking: dict[str, Work] = {
        "h2d_pageable": lambda: on_gpu.copy_(pageable),
        "d2h_pageable": lambda: pageable.copy_(on_gpu),
        "d2h_pageable_fresh": lambda: on_gpu.to("cpu"),
    }
    if quantity == "h2d_pinned":
        return lambda: by_events(up, lambda: on_gpu.copy_(pinned, non_blocking=True), calls)
    if quantity == "d2h_pinned":
        return lambda: by_events(down, lambda: pinned.copy_(on_gpu, non_blocking=True), calls)
    if quantity == "duplex_pinned":
        return lambda: by_clock(duplex, torch.cuda.synchronize) / calls
    return lambda: by_clock(blocking[quantity], torch.cuda.synchronize)


def _arrays(device: Device, size: int) -> list[Tensor]:
    """Pinned memory twice, pageable memory, and device memory twice."""
    pageable = torch.full((size,), 1, dtype=torch.uint8)
    pinned = [device.host(size, torch.uint8) for _ in range(2)]
    return [*pinned, pageable, *(device.full(size, torch.uint8, 1) for _ in range(2))]
