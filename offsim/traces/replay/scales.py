"""Changed speeds: their names, and how users write them."""

from __future__ import annotations

from offsim.inputs.errors import InputError, suggestion

SCALES = {
    "h2d": "copies from host to device",
    "d2h": "copies from device to host",
    "d2d": "copies within and between devices",
    "gemm": "matrix products and convolutions",
    "attention": "fused attention",
    "gpu_adam": "Adam and other multi-tensor kernels on the GPU",
    "collective": "collectives",
    "elementwise": "kernels that memory bandwidth bounds",
    "other": "other kernels",
    "cpu_adam": "optimizer steps on the CPU",
    "cpu": "all else that host threads do, between calls too",
}
"""What can be scaled. A factor is a speed: 2 takes half the time."""


def parse_scales(text: str) -> dict[str, float]:
    """Read "h2d=2,cpu_adam=1.5"; InputError for what cannot be scaled and for what is no factor."""
    scales: dict[str, float] = {}
    where = f"--scale '{text}'"
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"found '{part.strip()}', expected NAME=FACTOR such as h2d=2", where)
        if name not in SCALES:
            raise InputError(f"unknown '{name}'{suggestion(name, SCALES)}", where)
        if name in scales:
            raise InputError(f"found {name} twice, expected it once", where)
        try:
            scales[name] = float(value)
        except ValueError:
            scales[name] = 0.0
        if not 1e-6 <= scales[name] <= 1e6:
            raise InputError(f"{name}: found '{value}', expected a factor from 1e-6 to 1e6", where)
    return scales
