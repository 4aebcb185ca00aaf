"""Sweeps of the small model, whose points take milliseconds."""

from __future__ import annotations

from typing import Any

from tests.small_scenarios import scenario


def small_sweep(**axes: list[Any]) -> dict[str, Any]:
    """Two schedulers, one of them with strides, on two links; further axes by their names, `_` for the dot."""
    return {
        "base": {**scenario(), "name": "small"},
        "axes": {
            "scheduler.name": ["zero3_offload", "deep_optimizer_states"],
            "scheduler.update_stride": [2, 3],
            "hardware_changes.link.h2d_bytes_per_s": ["x1", "x2"],
            **{name.replace("__", "."): values for name, values in axes.items()},
        },
    }
