"""MemAscend (arXiv 2505.23254): ZeRO-Infinity with less pinned host memory, each change a switch.

Modelled after its abstract and the author's repositories. Its raw-device I/O moves the same bytes at a higher rate,
which the tier has to be given. With state in 16 bits, p, m and v move half the bytes; gradients stay in 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from offsim.engine import Code
from offsim.platform.platform import HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Workload
from offsim.schedulers.base import count, option
from offsim.schedulers.zero_infinity import ZeroInfinity, ZeroInfinityOptions
from offsim.states.placement import Placed
from offsim.states.pool import pinned_bytes

PAGE = 4096
TEMPORARIES = BF16 + 1
"""Bytes a gradient that isinf and isnan take: a copy without sign, and a truth value."""
SEPARATE, FUSED = 12, BF16
"""Bytes of host memory that the check moves for a 16-bit gradient: in six passes, or in one."""


class MemAscendOptions(ZeroInfinityOptions):
    """All changes but the 16-bit state are on."""

    parameter_buffers: Literal["by_size", "largest"] = option(
        "by_size", "by_size: buffers of each tensor's size; largest: parameter_buffer_count of parameter_buffer_size"
    )
    pinned: Literal["exact", "power_of_two"] = option(
        "exact", "exact: pinned allocations in whole pages; power_of_two: as CUDA's host allocator rounds them"
    )
    overflow_check: Literal["fused", "separate"] = option(
        "fused", "fp16 gradients are checked in one pass without temporaries, or by isinf and isnan"
    )
    optimizer_dtype: Literal["fp32", "bf16"] = option("fp32", "type of p, m and v")


class MemAscend(ZeroInfinity):
    """The steps of ZeRO-Infinity in buffers that fit."""

    name = "memascend"
    Options = MemAscendOptions
    deepspeed = None

    @classmethod
    def approximates(cls, options: MemAscendOptions) -> str:
        return "" if options.optimizer_dtype == "fp32" else "optimizer state in bf16"

    def __init__(self, options: MemAscendOptions, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.state_bytes = 3 * (BF16 if options.optimizer_dtype == "bf16" else FP32)

    def pinned(self, nbytes: float) -> float:
        return -(-nbytes // PAGE) * PAGE if self.options.pinned == "exact" else pinned_bytes(nbytes)

    def buffer_bytes(self, slices: Sequence[int]) -> float:
        if self.options.parameter_buffers == "largest":
            return super().buffer_bytes(slices)
        vocabulary = self.workload.vocab_elements / self.workload.training.data_parallel
        layers = self.layers_ahead or 1
        return layers * sum(self.pinned(BF16 * n) for n in slices) + self.pinned(BF16 * vocabulary)

    def before_update(self, rank: Rank) -> Code:
        """The host checks its 16-bit gradients for overflow."""
        elements = count(self.off_gpu())
        fused = self.options.overflow_check == "fused"
        temporaries = 0.0 if fused else TEMPORARIES * elements
        rank.tier(HOST).allocate("temporaries of the overflow check", temporaries)
        yield rank.host_pass((FUSED if fused else SEPARATE) * elements, "overflow check")
        rank.tier(HOST).free("temporaries of the overflow check", temporaries)
        yield from super().before_update(rank)
