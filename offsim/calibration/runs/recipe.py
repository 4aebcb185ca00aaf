"""What is fitted: constants, the profiles that they are of, where each starts, and how far it may go.

A constant's start is its published or physical value, and `spread` is how far (natural logarithm) it may
plausibly lie from it: the fit pays one standard error of a measured phase for going that far. Runs of one or two
models cannot pin every constant, and this keeps those that they don't where the hardware puts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """A fitted value, the profile fields that it sets: (profile, dotted field, factor), and what it cannot exceed."""

    name: str
    start: float
    spread: float
    targets: tuple[tuple[str, str, float], ...]
    most: float = math.inf


@dataclass(frozen=True)
class Recipe:
    """Constants of profiles that are fitted together, since their runs share hardware."""

    name: str
    profiles: tuple[str, ...]
    constants: tuple[Constant, ...]
