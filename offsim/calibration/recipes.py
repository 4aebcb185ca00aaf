"""Which constants of the measured testbeds are fitted, where each fit starts, and how far it may go.

A constant's start is its published or physical value, and `spread` is how far (natural logarithm) it may
plausibly lie from it: the fit pays one standard error of a measured phase for going that far. Runs of one or two
models cannot pin every constant, and this keeps those that they don't where the hardware puts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from offsim.training.rank import ADAM_TRAFFIC, SCALE_TRAFFIC

BOUND = "polaris-4xa100-numa-bound"
UNBOUND = "polaris-4xa100"
H100 = "jlse-4xh100"


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


def _field(field: str, start: float, spread: float, *profiles: str) -> Constant:
    name = f"{field} ({', '.join(profiles)})"
    return Constant(name, start, spread, tuple((profile, field, 1.0) for profile in profiles))


def _vector_rate(start: float, spread: float, profile: str) -> Constant:
    """Adam and scaling run at one rate of host memory bytes: both are vectorised streams over fp32 arrays."""
    targets = (
        (profile, "host.adam_params_per_s", 1 / ADAM_TRAFFIC),
        (profile, "host.scale_params_per_s", 1 / SCALE_TRAFFIC),
    )
    return Constant(f"CPU vector bytes/s ({profile})", start, spread, targets)


POLARIS = Recipe(
    "polaris",
    (UNBOUND, BOUND),
    (
        _field("gpu.matrix_flops_per_s", 2.2e14, 0.15, UNBOUND, BOUND),
        _field("gpu.kernel_latency_s", 1.5e-5, 0.7, UNBOUND, BOUND),
        _field("gpu.hbm_bytes_per_s", 1.2e12, 0.1, UNBOUND, BOUND),
        _field("interconnect.gpu_bytes_per_s", 1.3e11, 0.3, UNBOUND, BOUND),
        _field("interconnect.collective_gpu_share", 0.3, 0.5, UNBOUND, BOUND),
        _field("interconnect.nic_bytes_per_s", 8e9, 1.0, UNBOUND, BOUND),
        _field("host.module_launch_s", 4e-3, 0.5, UNBOUND, BOUND),
        _field("host.subgroup_launch_s", 1e-3, 0.5, UNBOUND, BOUND),
        _field("host.memory_bytes_per_s", 1.0e11, 0.5, UNBOUND),
        _vector_rate(1.5e11, 0.15, UNBOUND),
        _field("host.downcast_params_per_s", 1e10, 0.4, UNBOUND),
        _field("host.downcast_params_per_s", 6e9, 0.3, BOUND),
        _field("host.upcast_params_per_s", 6e9, 0.3, UNBOUND, BOUND),
        _field("link.h2d_bytes_per_s", 2.2e10, 0.1, UNBOUND, BOUND),
        _field("link.d2h_bytes_per_s", 2.2e10, 0.1, UNBOUND, BOUND),
        _field("link.pageable_h2d_bytes_per_s", 1.2e10, 0.5, UNBOUND),
        _field("link.pageable_d2h_bytes_per_s", 6e9, 0.5, UNBOUND),
        _field("host.memory_bytes_per_s", 4.5e10, 0.2, BOUND),
        _field("link.pageable_h2d_bytes_per_s", 8e9, 0.5, BOUND),
        _field("link.pageable_d2h_bytes_per_s", 6e9, 0.5, BOUND),
    ),
)

JLSE = Recipe(
    "jlse",
    (H100,),
    (
        _field("gpu.matrix_flops_per_s", 6e14, 0.15, H100),
        _field("gpu.kernel_latency_s", 1.5e-5, 0.5, H100),
        _field("gpu.hbm_bytes_per_s", 2.4e12, 0.1, H100),
        _field("interconnect.gpu_bytes_per_s", 1.5e11, 0.3, H100),
        _field("interconnect.collective_gpu_share", 0.3, 0.5, H100),
        _field("host.module_launch_s", 4e-3, 0.5, H100),
        _field("host.subgroup_launch_s", 1e-3, 0.5, H100),
        _field("host.update_start_s", 0.12, 0.5, H100),
        _field("host.memory_bytes_per_s", 2.26e11, 0.3, H100),
        _vector_rate(2.09e11, 0.1, H100),
        _field("host.downcast_params_per_s", 1.2e10, 0.3, H100),
        _field("host.upcast_params_per_s", 1.2e10, 0.3, H100),
        _field("link.h2d_bytes_per_s", 5.5e10, 0.1, H100),
        _field("link.d2h_bytes_per_s", 5.0e10, 0.15, H100),
        _field("link.pageable_h2d_bytes_per_s", 1e10, 0.5, H100),
        _field("link.pageable_d2h_bytes_per_s", 5e9, 0.5, H100),
    ),
)

RECIPES = (POLARIS, JLSE)
