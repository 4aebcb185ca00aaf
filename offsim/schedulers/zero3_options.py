"""Options of the schedules derived from DeepSpeed's ZeRO-3: what its versions (stage3.py) do in different ways."""

from __future__ import annotations

from typing import Literal

from offsim.inputs.fields import Flag
from offsim.schedulers.base import OPTIMIZER, OffloadOptions, option

GradientFlush = Literal["host_cast", "staged", "blocking", "asynchronous"]


class OverlapOptions(OffloadOptions):
    """The stream of gradients."""

    overlap_comm: Flag = option(
        True,
        "gradients are reduced and copied beside compute (DeepSpeed's default in stage 3); if not, on its stream",
        deepspeed="zero_optimization.overlap_comm",
    )


class TwinFlowOptions(OffloadOptions):
    """Which sub-groups `cpu_ratio` leaves on the GPU."""

    gpu_subgroups: Literal["last", "first"] = option(
        "last",
        "those that cpu_ratio leaves on the GPU: last (DeepSpeed before 0.18.0, as measured) or first, whose gradients "
        "come at the end of backward (from 0.18.0)",
    )


class Zero3OffloadOptions(TwinFlowOptions, OverlapOptions):
    """How gradients reach host memory at the accumulation boundary, by version of DeepSpeed."""

    gradient_flush: GradientFlush = option(
        "host_cast",
        "host_cast: 2 B a parameter to pageable memory, converted by the CPU (DeepSpeed to 0.15.3); "
        "staged: 4 B into one pinned buffer, device synchronized, copied on by the CPU (0.15.4 to 0.16.2); "
        "blocking: 4 B to pageable memory (0.16.3 to 0.19.4); asynchronous: 4 B to pinned memory (from 0.19.5)",
        deepspeed=f"{OPTIMIZER}.pin_memory",
        deepspeed_default=True,
        deepspeed_values={
            True: (["asynchronous"], "to pinned memory, since 0.19.5; --set for older builds"),
            False: (["blocking", "staged", "host_cast"], "to pageable memory"),
        },
    )


def flush_of(options: OffloadOptions) -> GradientFlush:
    """Asynchronous where the options do not choose."""
    return options.gradient_flush if isinstance(options, Zero3OffloadOptions) else "asynchronous"
