"""Options of SuperOffload: keys of DeepSpeed's configuration, and what its versions and the paper do in different ways.

DeepSpeed, runtime/superoffload. 0.18.0 to 0.18.8: the CPU-Adam process fetches gradients itself, and updates before the
norm is known; its code shows no upload of what the CPU has updated: here as from 0.18.9. Paper: pinned fp32 copies both
ways, and casts on the GPU.
"""

from __future__ import annotations

from typing import Literal

from offsim.inputs.fields import Flag, Number
from offsim.schedulers.base import OPTIMIZER, option
from offsim.schedulers.zero3_options import OverlapOptions


class SuperOffloadOptions(OverlapOptions):
    """`cpu_ratio` leaves the first sub-groups on the GPU: DeepSpeed's form of the paper's repartition of buckets."""

    version: Literal["0.18.9", "0.18.0", "paper"] = option("0.18.9", "of DeepSpeed, from that on; or the paper")
    gradient_clipping: Flag = option(
        False,
        "by the global norm: from 0.18.9 it forbids updates in backward",
        deepspeed="gradient_clipping",
        deepspeed_default=0.0,
        deepspeed_values={0.0: ([False], "no clipping"), 1.0: ([True], "updates wait for the norm")},
    )
    cpuadam_cores_perc: Number = option(
        0.8,
        "share of cores for CPU Adam",
        gt=0,
        lt=1,
        tries=(0.6, 0.8, 0.9),
        deepspeed=f"{OPTIMIZER}.cpuadam_cores_perc",
    )
