"""Microbenchmarks of a machine whose constants are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TRUTH = {
    "link.h2d_bytes_per_s": 5.5e10,
    "link.d2h_bytes_per_s": 5.0e10,
    "link.copy_latency_s": 1e-5,
    "link.duplex_bytes_per_s": 9.8e10,
    "link.pageable_h2d_bytes_per_s": 1.1e10,
    "gpu.matrix_flops_per_s": 6e14,
    "gpu.kernel_latency_s": 8e-6,
    "gpu.hbm_bytes_per_s": 2.4e12,
    "gpu.adam_params_per_s": 8.5e10,
    "host.adam_params_per_s": 4.5e9,
    "host.scale_params_per_s": 14 * 0.6e9,
    "host.memory_bytes_per_s": 0.7 * (28 * 4.5e9 + 5.5e10),
    "launch": 6e-6,
}
THREADS = 14


def measured(seed: int, noise: float = 0.03, outliers: float = 0.05, repetitions: int = 8) -> list[dict[str, object]]:
    """Records with multiplicative noise, and some repetitions several times too long."""
    draw = np.random.default_rng(seed)
    records: list[dict[str, object]] = []

    def add(quantity: str, seconds: float, **what: object) -> None:
        times = seconds * np.exp(draw.normal(0, noise, repetitions))
        times[draw.random(repetitions) < outliers] *= draw.uniform(2, 10)
        records.append({"quantity": quantity, "condition": "idle", **what, "seconds": times.tolist()})

    for size in (2**power for power in range(12, 31, 3)):
        for name, rate, latency in (
            ("h2d_pinned", 5.5e10, 1e-5),
            ("d2h_pinned", 5e10, 1e-5),
            ("duplex", 9.8e10, 1.2e-5),
            ("h2d_pageable", 1.1e10, 2e-5),
            ("gpu_elementwise", 2.4e12, 6e-6),
        ):
            add(name, latency + size / rate, bytes=size)
    for side in (256, 512, 1024, 2048, 4096, 8192):
        add("gemm", 8e-6 + 2 * side**3 / 6e14, m=side, n=side, k=side)
    for elements in (10**6, 10**7, 10**8):
        add("gpu_adam_fused", 8e-6 + elements / 8.5e10, elements=elements)
        add("gpu_adam_foreach", 8e-6 + elements / 3e10, elements=elements)
        for threads in (1, 4, 8, 16, 32):
            add("cpu_adam", 2e-5 + elements / min(threads * 0.4e9, 4.5e9), elements=elements, threads=threads)
            add("cpu_scale", 2e-5 + elements / min(threads * 0.6e9, 15e9), elements=elements, threads=threads)
        add("cpu_adam", 2e-5 + elements / (0.7 * 4.5e9), elements=elements, threads=32, condition="under dma")
    for size in (2**power for power in range(24, 31, 2)):
        add("h2d_pinned", 1e-5 + size / (0.7 * 5.5e10), bytes=size, condition="cpu busy")
    add("launch", 6e-6)
    return records


def harness_folder(folder: Path, seed: int = 0, noise: float = 0.03) -> Path:
    """A folder as the harness leaves it."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(record) for record in measured(seed, noise)]
    (folder / "microbenchmarks.jsonl").write_text("\n".join(lines) + "\n")
    return folder
