"""How activities look and how quantities are written, the same in every view."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Look(NamedTuple):
    """How one kind of activity is drawn: its name in legends, its colour (hex), its hatch ("" for none)."""

    label: str
    colour: str
    hatch: str


# After Okabe and Ito, so hues stay apart for colour-blind readers. Within what shares a stream the lightness differs
# enough to be read in grey (H2D over D2H, scaling over Adam); where it does not, one of the two is hatched.
KINDS: dict[str, Look] = {
    "compute": Look("compute", "#0072B2", ""),
    "launch": Look("launch", "#141414", ""),
    "all_gather": Look("all-gather", "#56B4E9", ""),
    "reduce_scatter": Look("reduce-scatter", "#A9DDF8", "\\\\\\\\"),
    "all_reduce": Look("all-reduce", "#D3EEFB", "xxxx"),
    "h2d": Look("copy H2D", "#E69F00", ""),
    "d2h": Look("copy D2H", "#B34A00", ""),
    "d2d": Look("copy D2D", "#F6D08B", "...."),
    "cpu_adam": Look("CPU Adam", "#009E73", ""),
    "gpu_adam": Look("GPU Adam", "#005C43", ""),
    "conversion": Look("conversion", "#CC79A7", "//////"),
    "scaling": Look("scaling", "#F0E442", ""),
    "nvme_read": Look("NVMe read", "#C9BDF0", "-----"),
    "nvme_write": Look("NVMe write", "#4B2E83", ""),
    "wait": Look("wait", "#BBBBBB", ""),
}
FALLBACK_COLOUR = "#8F5F5F"
FALLBACK_HATCH = "++++"

# What holds memory, by the beginning of its name, from the bottom of the stack (steady) to its top (changing): the same
# colour in every picture. Neighbours differ in lightness or hatch.
OCCUPANTS: dict[str, tuple[str, str]] = {
    "parameters": ("#0072B2", ""),
    "optimizer state": ("#E69F00", ""),
    "second copies": ("#F6D08B", "////"),
    "gradients": ("#009E73", ""),
    "gradient accumulation": ("#B9E3D3", "...."),
    "staging": ("#CC79A7", "//////"),
    "attention": ("#8F5F5F", "++++"),
    "gradient bucket": ("#F0E442", ""),
    "GPU sub-group": ("#B34A00", ""),
    "gradients of GPU": ("#7CC8AE", "////"),
    "reduced gradients": ("#CFE8A9", "xxxx"),
    "logits": ("#CC79A7", ""),
    "activations": ("#4B2E83", ""),
    "gathered": ("#56B4E9", ""),
    "layer working": ("#D3EEFB", ""),
}
OTHER_OCCUPANTS = ("#BBBBBB", "#6E6E6E", "#DDDDDD", "#949494")
STACK_HATCHES = ("", "////", "....", "++++", "\\\\\\\\")

STREAMS_FIRST = ("host thread", "compute")


def look_of(kind: str) -> Look:
    """How to draw activities of this kind; a kind that is not known is brown and hatched under its own name."""
    return KINDS.get(kind) or Look(kind.replace("_", " "), FALLBACK_COLOUR, FALLBACK_HATCH)


def occupant_looks(occupants: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and hatch of each occupant of a memory tier, all different, in stacking order from the bottom."""

    def known(name: str) -> str:
        return max((start for start in OCCUPANTS if name.startswith(start)), key=len, default="")

    order = list(OCCUPANTS)
    names = sorted(dict.fromkeys(occupants), key=lambda name: order.index(known(name)) if known(name) else len(order))
    looks: dict[str, tuple[str, str]] = {}
    strangers = 0
    for name in names:
        if known(name):
            colour, hatch = OCCUPANTS[known(name)]
        else:
            colour, hatch = OTHER_OCCUPANTS[strangers % len(OTHER_OCCUPANTS)], ""
            strangers += 1
        hatches = (hatch, *(other for other in STACK_HATCHES if other != hatch))
        looks[name] = next(((colour, h) for h in hatches if (colour, h) not in looks.values()), (colour, hatch))
    return looks


def ordered_kinds(kinds: Iterable[str]) -> list[str]:
    """The kinds that occur, in the order of `KINDS`, unknown ones last by name."""
    present = set(kinds)
    return [kind for kind in KINDS if kind in present] + sorted(present - KINDS.keys())


def ordered_streams(streams: Iterable[str]) -> list[str]:
    """The streams that occur: the host thread, the compute stream, then the others in the order first seen."""
    seen = list(dict.fromkeys(streams))
    return [name for name in STREAMS_FIRST if name in seen] + [name for name in seen if name not in STREAMS_FIRST]


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue (0 to 1) of "#RRGGBB"."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def lighter(colour: str, share: float = 0.22) -> tuple[float, float, float]:
    """The colour mixed with this share of white: the shade of every second sub-group or layer."""
    red, green, blue = (value + (1.0 - value) * share for value in rgb(colour))
    return red, green, blue


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance (0 black to 1 white) of an sRGB colour, as WCAG defines it."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink_on(colour: tuple[float, float, float]) -> str:
    """Black or white, whichever contrasts more with this background."""
    return "black" if (luminance(colour) + 0.05) ** 2 > 1.05 * 0.05 else "white"


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
    """A time and the half-width of its interval in one unit, as "2.29 ± 0.07 s", with no more digits than are known."""
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
    """The unit to draw an axis of memory in, and its bytes: GiB, or MiB where all is below 1 GiB."""
    return ("GiB", 2.0**30) if count >= 2**30 else ("MiB", 2.0**20)


def format_rate(bytes_per_s: float) -> str:
    """Bytes per second, in powers of ten: "55.2 GB/s"."""
    return format_bytes(bytes_per_s) + "/s"


def engineering(value: float) -> str:
    """A number as people write it: 6, 0.25, 55.2e9, 12e-6; all its digits up to six."""
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:.6g}"
    power = 3 * math.floor(math.log10(abs(value)) / 3)
    mantissa = f"{value / 10.0**power:.6g}"
    return f"{mantissa}e{power}"
