"""The update's kernels on the CPU: over threads at one size, and over sizes with all threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from .adam import fused_adam
from .device import BF16
from .machine import available_host_bytes
from .measurement import DURING_COPIES, IDLE, Bench, Measurement, Timer, Work, by_clock, largest_that_fits


def host_kernels(bench: Bench) -> Iterator[Measurement]:
    """All kernels, with the CPU otherwise idle and, where there is a GPU, while copies run."""
    sizes = [100_000, 1_000_000] if bench.quick else [1_000_000, 10_000_000, 100_000_000]
    largest = largest_that_fits(sizes[-1], 20, available_host_bytes())
    sizes = sorted({min(size, largest) for size in sizes})
    powers = [1 << power for power in range(bench.threads.bit_length())]
    cases = [(sizes[-1], threads, IDLE) for threads in powers if threads < bench.threads]
    cases += [(size, bench.threads, IDLE) for size in sizes]
    if bench.device.cuda:
        cases.append((sizes[-1], bench.threads, DURING_COPIES))
    for size, threads, condition in cases:
        for quantity in _kernels(1):
            prepare = partial(_prepare, bench, quantity, size, threads)
            yield Measurement(quantity, size, "elements", threads, condition, "host", prepare)


def _kernels(elements: int) -> dict[str, Work]:
    """Return the work of each quantity on arrays of a size."""
    a, b, c, d = (torch.full((elements,), 0.01) for _ in range(4))
    half = torch.full((elements,), 0.01, dtype=BF16)
    return {
        "host_copy": lambda: b.copy_(a),
        "host_add": lambda: torch.add(a, b, out=c),
        "cpu_adam": partial(fused_adam, a, b, c, d, 1),
        "cpu_scale": lambda: b.mul_(1.0),
        "cpu_downcast": lambda: half.copy_(a),
        "cpu_downcast_fresh": lambda: a.to(BF16),
        "cpu_upcast": lambda: a.copy_(half),
    }


def _prepare(bench: Bench, quantity: str, elements: int, threads: int) -> Timer:
    torch.set_num_threads(bench.threads)  # so that memory is first touched by all threads
    work = bench.hold(("host", elements), partial(_kernels, elements))[quantity]
    torch.set_num_threads(threads)
    return partial(by_clock, work)
