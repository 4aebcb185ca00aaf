"""Kernels of the GPU: element-wise ones, matrix products, launches. Without a GPU, the CPU does the last two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from .adam import foreach_adam, fused_adam
from .device import BF16, FP32, Device
from .measurement import IDLE, Bench, Measurement, Timer, Work, by_clock, by_events, largest_that_fits
from .model import Layer, Shape


def elementwise_kernels(bench: Bench) -> Iterator[Measurement]:
    """Kernels that the GPU's memory bounds."""
    sizes = [1_000_000] if bench.quick else [1_000_000, 10_000_000, 100_000_000, 400_000_000]
    free = bench.device.free_bytes()
    for size in sorted({largest_that_fits(size, 24, free) for size in sizes}):
        for quantity in _elementwise(bench.device, 1):
            prepare = partial(_prepare_elementwise, bench, quantity, size)
            yield Measurement(quantity, size, "elements", bench.threads, IDLE, "device", prepare)


def _elementwise(device: Device, elements: int) -> dict[str, Work]:
    """Return the work of each quantity on arrays of a size."""
    a, b, c, d = (device.full(elements, FP32, 0.01) for _ in range(4))
    half = device.full(elements, BF16, 0.01)
    return {
        "gpu_copy": lambda: b.copy_(a),
        "gpu_add": lambda: torch.add(a, b, out=c),
        "gpu_adamw_fused": partial(fused_adam, a, b, c, d, 1),
        "gpu_adamw_foreach": partial(foreach_adam, a, b, c, d, torch.ones(())),
        "gpu_downcast": lambda: half.copy_(a),
        "gpu_upcast": lambda: a.copy_(half),
    }


def _prepare_elementwise(bench: Bench, quantity: str, elements: int) -> Timer:
    work = bench.hold(("gpu", elements), partial(_elementwise, bench.device, elements))[quantity]
    return lambda: by_events(bench.device.compute, work, 1 if elements > 10_000_000 else 5)


def matrix_products(bench: Bench) -> Iterator[Measurement]:
    """Matrix products in bf16, m x k by k x n: squares, and those of layers."""
    cuda = bench.device.cuda
    shapes = [(size, size, size) for size in ((128, 256) if bench.quick else (256, 512, 1024))]
    if cuda and not bench.quick:
        shapes += [(size, size, size) for size in (2048, 4096, 8192)]
        for tokens in (2048, 8192):
            for hidden in (2048, 4096, 5120, 8192):
                shapes += [(tokens, hidden, hidden), (tokens, 4 * hidden, hidden), (tokens, hidden, 4 * hidden)]
    clock = "device" if cuda else "host"
    for shape in dict.fromkeys(shapes):
        prepare = partial(_prepare_product, bench, shape)
        yield Measurement("gemm", shape, "m x n x k", bench.threads, IDLE, clock, prepare)


def _prepare_product(bench: Bench, shape: tuple[int, int, int]) -> Timer:
    torch.set_num_threads(bench.threads)
    device, (m, n, k) = bench.device, shape
    bench.hold("gemm", lambda: None)
    a = torch.randn(m, k, dtype=BF16, device=device.torch)
    b = torch.randn(k, n, dtype=BF16, device=device.torch)
    if device.cuda:
        return lambda: by_events(device.compute, lambda: a @ b, 5)
    return lambda: by_clock(lambda: a @ b)


def launches(bench: Bench) -> Iterator[Measurement]:
    """Host time to launch a kernel, and one layer's forward; the work itself is too small to matter."""
    for quantity in ("kernel_launch", "layer_forward_launch"):
        prepare = partial(_prepare_launch, bench, quantity)
        yield Measurement(quantity, 1, "launches", bench.threads, IDLE, "host", prepare)


def _prepare_launch(bench: Bench, quantity: str) -> Timer:
    """Launch so few kernels that the GPU's queue holds all of them."""
    torch.set_num_threads(bench.threads)
    device = bench.device
    number = torch.ones(1, device=device.torch)
    layer: nn.Module = Layer(Shape(1, 64, 128, 2, 16, 8), device.torch)
    hidden = torch.ones(1, 8, 64, dtype=BF16, device=device.torch)
    work: Work
    work, calls = (partial(number.add_, 1), 200) if quantity == "kernel_launch" else (partial(layer, hidden), 10)

    def once() -> float:
        device.synchronize()
        with torch.no_grad():  # as under activation checkpointing
            start = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - start) / calls

    return once
