"""Quantities in readable form: "1.30 s", "74.5 GiB", "55.2 GB/s", "41.3 %", "4 GPUs"."""

from __future__ import annotations

import math
from collections.abc import Sequence

GIB = 2.0**30


def _scaled(value: float, base: float, units: Sequence[str]) -> str:
    """Three significant digits and the largest unit that keeps the number at 1 or more."""
    if not math.isfinite(value):
        return f"{value} {units[0]}"
    power = 0
    # 999.5 would be rounded to "1000": it belongs to the next unit already.
    while abs(value) >= (999.5 if base == 1000 else base - 0.5) and power < len(units) - 1:
        value /= base
        power += 1
    digits = 0 if abs(value) >= 99.95 or (power == 0 and value == int(value)) else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {units[power]}"


def format_time(seconds: float) -> str:
    """Seconds as "1.30 s", "85.2 ms", "3.10 µs" or "0 s"."""
    if seconds == 0 or not math.isfinite(seconds):
        return f"{seconds:.0f} s"
    if abs(seconds) >= 0.9995:
        return f"{seconds:.{0 if abs(seconds) >= 99.95 else 1 if abs(seconds) >= 9.995 else 2}f} s"
    return _scaled(seconds * 1e9, 1000, ("ns", "µs", "ms", "s"))


def format_time_interval(seconds: float, half_s: float) -> str:
    """A time and the half-width of its interval in one unit, "2.29 ± 0.07 s", with significant digits only."""
    number, unit = format_time(seconds).split()
    per_unit = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    half = half_s / per_unit
    digits = len(number.partition(".")[2]) if half <= 0 else max(0, -math.floor(math.log10(half)))
    return f"{seconds / per_unit:.{digits}f} ± {half:.{digits}f} {unit}"


def format_bytes(count: float) -> str:
    """Bytes moved, in powers of ten: "1.25 GB"."""
    return _scaled(count, 1000, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_memory(count: float) -> str:
    """Bytes held, in powers of two as nvidia-smi and PyTorch report memory: "74.5 GiB"."""
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def memory_unit(count: float) -> tuple[str, float]:
    """The unit of a memory axis, and its bytes: GiB, or MiB if all is below 1 GiB."""
    return ("GiB", GIB) if count >= GIB else ("MiB", 2.0**20)


def format_rate(bytes_per_s: float) -> str:
    """Bytes per second, in powers of ten: "55.2 GB/s"."""
    return format_bytes(bytes_per_s) + "/s"


def engineering(value: float) -> str:
    """A number in engineering notation: 6, 0.25, 55.2e9, 12e-6; up to six digits."""
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:.6g}"
    power = 3 * math.floor(math.log10(abs(value)) / 3)
    mantissa = f"{value / 10.0**power:.6g}"
    return f"{mantissa}e{power}"


def format_percent(fraction: float) -> str:
    """A fraction as "41.3 %", "0.2 %", "100 %"."""
    return f"{100 * fraction:.{0 if fraction >= 0.9995 else 1}f} %"


def format_capacity(amount: float, unit: str) -> str:
    """A resource's capacity per second, by its unit: "55.2 GB/s", "48 cores"."""
    return format_rate(amount) if unit == "B/s" else f"{amount:g} {unit}"


def plural(count: int, noun: str) -> str:
    """Count things: 1 GPU, 4 GPUs."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
