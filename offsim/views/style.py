"""How activities and occupants of memory look, the same in every view."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import cycle
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
    "host copy": Look("host copy", "#7F7F00", "oo"),
    "wait": Look("wait", "#BBBBBB", ""),
}
STORAGE = {" read": ("#C9BDF0", "-----"), " write": ("#4B2E83", "")}
"""Colour and hatch of reads and writes of any storage tier: `nvme read`."""
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

# Of lines and marks that stand for runs: one after the other, then from the first on again.
SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4B2E83", "#8F5F5F")
SERIES_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

HOST_THREAD = "host thread"
# What puts a stream into a group: the first group that one of its kinds belongs to. What only converts or waits is on
# the CPU.
GROUPS = ("CPU", "GPU", "copies H2D", "copies both ways", "copies D2H", "collectives", "storage")
GROUPED = (
    ("GPU", {"compute", "gpu_adam"}),
    ("CPU", {"launch", "cpu_adam", "scaling", "host copy"}),
    ("collectives", {"all_gather", "reduce_scatter", "all_reduce"}),
)


def look_of(kind: str) -> Look:
    """How to draw activities of this kind: reads and writes of any storage tier alike, under its name.

    A kind that is not known is brown and hatched under its own name.
    """
    for end, look in STORAGE.items():
        if kind.endswith(end):
            return Look(kind, *look)
    return KINDS.get(kind) or Look(kind.replace("_", " "), FALLBACK_COLOUR, FALLBACK_HATCH)


def occupant_looks(occupants: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and hatch of each occupant of a memory tier, all different, in stacking order from the bottom."""

    def known(name: str) -> str:
        return max((start for start in OCCUPANTS if name.startswith(start)), key=len, default="")

    order = [*OCCUPANTS, ""]
    others = cycle(OTHER_OCCUPANTS)
    looks: dict[str, tuple[str, str]] = {}
    for name in sorted(dict.fromkeys(occupants), key=lambda name: order.index(known(name))):
        colour, hatch = OCCUPANTS.get(known(name)) or (next(others), "")
        hatches = (hatch, *(other for other in STACK_HATCHES if other != hatch))
        looks[name] = next(((colour, h) for h in hatches if (colour, h) not in looks.values()), (colour, hatch))
    return looks


def ordered_kinds(kinds: Iterable[str]) -> list[str]:
    """The kinds that occur, in the order of `KINDS`, unknown ones last by name."""
    present = set(kinds)
    return [kind for kind in KINDS if kind in present] + sorted(present - KINDS.keys())


def grouped_streams(streams: Iterable[str], kinds: Iterable[str]) -> dict[str, str]:
    """Stream -> its group, in the order of rows, from the stream and the kind of each activity.

    CPU threads come first, the host thread on top; then the GPU, copies by direction, collectives, storage. Within a
    group they go by name.
    """
    seen: dict[str, set[str]] = {}
    for stream, kind in set(zip(streams, kinds, strict=True)):
        seen.setdefault(stream, set()).add(kind)
    groups = {stream: _group(stream, found) for stream, found in seen.items()}

    def place(stream: str) -> tuple[int, bool, list[str | int]]:
        parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", stream)]
        return GROUPS.index(groups[stream]), stream != HOST_THREAD, parts

    return {stream: groups[stream] for stream in sorted(groups, key=place)}


def _group(stream: str, kinds: set[str]) -> str:
    if stream == HOST_THREAD:
        return "CPU"
    if known := next((group for group, marks in GROUPED if marks & kinds), None):
        return known
    if any(kind.endswith(tuple(STORAGE)) for kind in kinds):
        return "storage"
    directions = kinds & {"h2d", "d2h"}
    if len(directions) == 1:
        return f"copies {directions.pop().upper()}"
    return "copies both ways" if directions or "d2d" in kinds else "CPU"


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
