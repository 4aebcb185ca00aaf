"""Small models on a made-up node, so that a simulation takes milliseconds and sums can be done by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from offsim.platform.hardware import HardwareProfile, TierSpec

# Rates of round numbers; nothing has a fixed cost unless a test asks for it.
GPU = {
    "memory_bytes": 1e12,
    "reserved_bytes": 0.0,
    "matrix_flops_per_s": 1e12,
    "kernel_latency_s": 1e-6,
    "hbm_bytes_per_s": 1e12,
    "adam_params_per_s": 1e11,
    "peak_flops_per_s": 2e12,
}
HOST = {
    "memory_bytes": 4e12,
    "numa_domains": 1,
    "memory_bytes_per_s": 1e11,
    "cores": 16.0,
    "cores_per_rank": 4.0,
    "adam_params_per_s": 1e9,
    "scale_params_per_s": 4e9,
    "downcast_params_per_s": 5e9,
    "upcast_params_per_s": 5e9,
    "module_launch_s": 1e-6,
    "subgroup_launch_s": 1e-6,
    "update_start_s": 1e-6,
}
LINK = {
    "h2d_bytes_per_s": 2e10,
    "d2h_bytes_per_s": 2e10,
    "duplex_bytes_per_s": 3e10,
    "copy_latency_s": 1e-6,
    "pageable_h2d_bytes_per_s": 5e9,
    "pageable_d2h_bytes_per_s": 4e9,
}
INTERCONNECT = {
    "gpu_bytes_per_s": 1e11,
    "nic_bytes_per_s": 2e10,
    "collective_latency_s": 1e-6,
    "collective_gpu_share": 0.1,
}
TIERS = {
    "nvme": {"capacity_bytes": 1e13, "read_bytes_per_s": 8e9, "write_bytes_per_s": 4e9, "latency_s": 1e-5},
    "pfs": {"scope": "job", "capacity_bytes": 1e15, "read_bytes_per_s": 6e9, "write_bytes_per_s": 5e9},
    "cxl": {"kind": "memory", "capacity_bytes": 1e12, "read_bytes_per_s": 3e10, "write_bytes_per_s": 2e10},
}
"""Tiers beyond GPU and host memory, for those who want them."""
MODEL = {
    "layers": 4,
    "hidden": 64,
    "ffn_hidden": 128,
    "heads": 4,
    "kv_heads": 4,
    "vocab": 128,
    "sequence": 32,
    "flash_attention": False,
}
TRAINING = {
    "micro_batch": 1,
    "global_batch": 4,
    "data_parallel": 2,
    "subgroup_size": 5_000,
}

SCHEDULERS: list[dict[str, Any]] = [
    {"name": "no_offload"},
    {"name": "zero3_offload"},
    {"name": "zero3_offload", "cpu_ratio": 0.5},
    {"name": "zero3_offload_async_grads"},
    {"name": "zero3_offload_async_grads", "cpu_ratio": 0.3},
    {"name": "deep_optimizer_states", "update_stride": 2},
    {"name": "deep_optimizer_states", "update_stride": 3, "cpu_ratio": 0.7},
    {"name": "deep_optimizer_states", "update_stride": 2, "transfers": "one_stream"},
]


def profile(
    gpus_per_node: int = 4, tiers: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), **sections: dict[str, Any]
) -> HardwareProfile:
    """The made-up node, with some values of some sections changed."""
    base = {"gpu": GPU, "host": HOST, "link": LINK, "interconnect": INTERCONNECT}
    return HardwareProfile(
        name="made-up",
        description="",
        gpus_per_node=gpus_per_node,
        validated=False,
        tiers={name: TierSpec(**values) for name, values in tiers.items()},
        **{name: {**values, **sections.get(name, {})} for name, values in base.items()},  # type: ignore[arg-type]
    )


def scenario(
    scheduler: str | dict[str, Any] = "zero3_offload", hardware: str = "jlse-4xh100", **changes: dict[str, Any]
) -> dict[str, Any]:
    """The small model, with some values of `model` and `training` changed."""
    return {
        "hardware": hardware,
        "model": {**MODEL, **changes.get("model", {})},
        "training": {**TRAINING, **changes.get("training", {})},
        "scheduler": {"name": scheduler} if isinstance(scheduler, str) else scheduler,
    }


@contextmanager
def small_buckets(elements: int = 60_000, reuse: int = 100_000) -> Iterator[None]:
    """Buckets and reuse distances in proportion to small models: several buckets, layers gathered again."""
    with (
        patch("offsim.programs.training.BUCKET_ELEMENTS", elements),
        patch("offsim.programs.training.MAX_LIVE", reuse),
    ):
        yield
