"""The palette must be read by colour-blind readers and in grey: measured in CIELAB, not judged by eye."""

import itertools

import numpy as np
import pytest

from offsim.views import style

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# Kinds that share a stream and touch there.
NEIGHBOURS = [
    *itertools.pairwise(["h2d", "scaling", "cpu_adam", "conversion", "h2d", "d2h", "conversion", "scaling"]),
    *itertools.pairwise(["launch", "cpu_adam"]),
    *itertools.pairwise(["h2d", "reduce_scatter", "d2h"]),
    *itertools.pairwise(["gpu_adam", "compute", "d2d"]),
    *itertools.pairwise(["nvme read", "nvme write"]),
]


def lab(colour: tuple[float, float, float], vision: str = "usual") -> np.ndarray:
    srgb = np.array(colour)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a: str, b: str, vision: str) -> float:
    return float(np.linalg.norm(lab(style.rgb(a), vision) - lab(style.rgb(b), vision)))


def lightness(colour: tuple[float, float, float]) -> float:
    return float(lab(colour)[0])


@pytest.mark.parametrize("vision", VISION)
def test_looks_of_the_same_hatch_have_colours_that_are_told_apart(vision: str) -> None:
    kinds = [look[1:] for look in style.KINDS.values()]
    for looks, least in ((kinds, 16), (style.OCCUPANTS.values(), 12)):
        for (a, hatch_a), (b, hatch_b) in itertools.combinations(looks, 2):
            assert hatch_a != hatch_b or distance(a, b, vision) > least, (a, b)


@pytest.mark.parametrize(("a", "b"), NEIGHBOURS)
def test_neighbours_on_a_stream_are_told_apart_in_grey(a: str, b: str) -> None:
    first, second = style.look_of(a), style.look_of(b)
    contrast = abs(lightness(style.rgb(first.colour)) - lightness(style.rgb(second.colour)))
    assert contrast > 10 or first.hatch != second.hatch


def test_the_light_shade_keeps_directions_apart_in_grey() -> None:
    dark, light = style.KINDS["d2h"].colour, style.KINDS["h2d"].colour
    assert lightness(style.rgb(light)) - lightness(style.lighter(dark)) > 10


@pytest.mark.parametrize("kind", ["compute", "h2d", "d2h", "cpu_adam", "gpu_adam", "conversion"])
def test_every_second_subgroup_is_visibly_lighter(kind: str) -> None:
    colour = style.look_of(kind).colour
    assert lightness(style.lighter(colour)) - lightness(style.rgb(colour)) > 4


@pytest.mark.parametrize("kind", style.KINDS)
def test_numbers_are_legible_on_every_kind(kind: str) -> None:
    for colour in (style.rgb(style.look_of(kind).colour), style.lighter(style.look_of(kind).colour)):
        ink = 0.0 if style.ink_on(colour) == "black" else 1.0
        high, low = sorted((style.luminance(colour), ink), reverse=True)
        assert (high + 0.05) / (low + 0.05) > 4.0


def test_an_unknown_kind_is_drawn_under_its_own_name() -> None:
    assert style.look_of("tape_read") == ("tape read", style.FALLBACK_COLOUR, style.FALLBACK_HATCH)


def test_kinds_have_a_stable_order() -> None:
    assert style.ordered_kinds(["zap", "wait", "h2d", "compute", "abc"]) == ["compute", "h2d", "wait", "abc", "zap"]


def test_streams_are_ordered_by_what_they_do_whenever_they_begin() -> None:
    kinds = {
        "nvme read": ["nvme read"], "device 10": ["csd write"], "device 9": ["csd read"],
        "all-gather": ["h2d", "all_gather"], "down": ["d2h", "d2d"], "momentum": ["h2d", "d2h"],
        "upload": ["conversion", "h2d"], "compute": ["h2d", "compute"], "background": ["conversion"],
        "host thread": ["d2h", "launch"],
    }  # fmt: skip
    activities = [(stream, kind) for stream, found in kinds.items() for kind in found]
    groups = style.grouped_streams(*zip(*activities, strict=True))
    assert list(groups.items()) == [
        ("host thread", "CPU"), ("background", "CPU"), ("compute", "GPU"), ("upload", "copies H2D"),
        ("momentum", "copies both ways"), ("down", "copies D2H"), ("all-gather", "collectives"),
        ("device 9", "storage"), ("device 10", "storage"), ("nvme read", "storage"),
    ]  # fmt: skip
    assert set(groups.values()) == set(style.GROUPS)


def test_occupants_have_looks_of_their_own_in_stacking_order() -> None:
    stacked = ["parameters (bf16)", "gradients (fp32)", "gradients (bf16)", "gradients of GPU sub-groups (bf16)"]
    stacked.append("gathered parameters")
    shuffled = [stacked[i] for i in (4, 3, 1, 2, 0)]
    looks = style.occupant_looks(["unknown a", *shuffled, *(f"unknown {c}" for c in "bcdefgh")])
    assert list(looks)[:5] == stacked
    assert len(set(looks.values())) == len(looks)
