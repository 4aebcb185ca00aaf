"""Microbenchmarks of a machine whose constants are known, as the harness writes them."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from offsim.calibration.microbenchmarks.rows import UNITS

TRUTH = {
    "link.h2d_bytes_per_s": 5.5e10,
    "link.d2h_bytes_per_s": 5.0e10,
    "link.copy_latency_s": 1e-5,
    "link.duplex_bytes_per_s": 9.8e10,
    "link.pageable_h2d_bytes_per_s": 1.1e10,
    "link.pageable_d2h_bytes_per_s": 2.5e9,
    "gpu.matrix_flops_per_s": 6e14,
    "gpu.kernel_latency_s": 8e-6,
    "gpu.hbm_bytes_per_s": 2.4e12,
    "gpu.adam_params_per_s": 8.5e10,
    "host.adam_params_per_s": 4.5e9,
    "host.scale_params_per_s": 14 * 0.6e9,
    "host.downcast_params_per_s": 0.6 * 8 * 0.7e9,  # of one pass, read 4 and write 2 B, where the schedules move 10 B
    "host.fresh_downcast_params_per_s": 3e9,
    "host.upcast_params_per_s": 14 * 0.5e9,
    "host.memory_bytes_per_s": 0.7 * (28 * 4.5e9 + 9.8e10),
    "host.module_launch_s": 3e-4,
    "kernel_launch_s": 6e-6,
}
THREADS = 14
"""Of a rank; more and fewer are measured."""
MEASURED_THREADS = (1, 2, 4, 8, 16, 24)
_CPU = {
    "host_copy": (1e9, 13e9),
    "host_add": (0.7e9, 9e9),
    "cpu_adam": (0.4e9, 4.5e9),
    "cpu_scale": (0.6e9, 12e9),
    "cpu_downcast": (0.7e9, 8 * 0.7e9),
    "cpu_downcast_fresh": (1e9, 3e9),
    "cpu_upcast": (0.5e9, 8e9),
}
"""Quantity -> elements per second of a thread, and of any number."""
_IN_CACHE = 5
"""How many times as fast a kernel is that works in cache."""


def row(quantity: str, size: float | list[float], *seconds: float, **more: Any) -> dict[str, Any]:
    """A row as the harness writes it; `more` has what differs from one thread on an idle machine."""
    unit = UNITS.get(quantity, "1")
    shared = {"quantity": quantity, "size": size, "unit": unit, "threads": 1, "condition": "idle", "clock": "device"}
    return shared | {"seconds": list(seconds)} | more


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """Write rows to a file."""
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def measured(seed: int, noise: float = 0.03, outliers: float = 0.05, repetitions: int = 8) -> list[dict[str, Any]]:
    """Records with multiplicative noise, and some repetitions several times too long."""
    draw = np.random.default_rng(seed)
    records: list[dict[str, Any]] = []

    def add(quantity: str, size: float | list[float], seconds: float, **more: object) -> None:
        times = seconds * np.exp(draw.normal(0, noise, repetitions))
        times[draw.random(repetitions) < outliers] *= draw.uniform(2, 10)
        records.append(row(quantity, size, *times.tolist(), **{"threads": MEASURED_THREADS[-1]} | more))

    sizes = (10**6, 10**7, 10**8)
    cases = [(sizes[-1], threads, "idle") for threads in MEASURED_THREADS[:-1]]
    cases += [(size, MEASURED_THREADS[-1], "idle") for size in sizes] + [(sizes[-1], MEASURED_THREADS[-1], "copies")]
    for size, threads, condition in cases:
        for quantity, (each, most) in _CPU.items():
            rate = min(threads * each, most) * (0.7 if condition == "copies" else 1) * (_IN_CACHE if size < 5e7 else 1)
            add(quantity, size, 2e-5 + size / rate, threads=threads, condition=condition, clock="host")
    for condition, share in (("idle", 1.0), ("cpu_adam", 0.7)):
        for size in (2**12, 2**16, 2**20, 2**24, 2**26, 2**28, 2**30):
            for quantity, rate, latency in (
                ("h2d_pinned", 5.5e10, 1e-5),
                ("d2h_pinned", 5e10, 1e-5),
                ("duplex_pinned", 4.9e10, 1.2e-5),  # of a direction
                ("h2d_pageable", 1.1e10, 2e-5),
                ("d2h_pageable", 1.2e10, 2e-5),
                ("d2h_pageable_fresh", 2.5e9 * (_IN_CACHE if size < 2**25 else 1), 2e-5),
            ):
                add(quantity, size, latency + size / (share * rate), condition=condition)
    for size in (10**6, 10**7, 10**8, 4 * 10**8):
        faster = _IN_CACHE if size < 5e7 else 1
        for quantity, traffic in (("gpu_copy", 8), ("gpu_add", 12), ("gpu_downcast", 6), ("gpu_upcast", 6)):
            add(quantity, size, 8e-6 + traffic * size / (2.4e12 * faster))
        add("gpu_adamw_fused", size, 8e-6 + size / (8.5e10 * faster))
        add("gpu_adamw_foreach", size, 8e-6 + size / (3e10 * faster))
    for side in (256, 512, 1024, 2048, 4096, 8192):
        add("gemm", [side] * 3, 8e-6 + 2 * prod([side] * 3) / 6e14)
    add("kernel_launch", 1, TRUTH["kernel_launch_s"], clock="host")
    add("layer_forward_launch", 1, TRUTH["host.module_launch_s"], clock="host")
    return records


def harness_folder(folder: Path, seed: int = 0, noise: float = 0.03) -> Path:
    """A folder as the harness leaves it."""
    folder.mkdir(exist_ok=True)
    write(folder / "microbenchmarks.jsonl", *measured(seed, noise))
    return folder
