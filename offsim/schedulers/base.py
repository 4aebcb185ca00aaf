"""What DeepSpeed's schedules have in common: gradients through host memory, and updates of what stays on the GPU."""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code
from offsim.inputs.fields import Number
from offsim.platform.platform import GPU, HOST
from offsim.programs.options import ScheduleOptions, option
from offsim.programs.rank import Rank
from offsim.programs.schedule import GRADIENTS, OPTIMIZER_STATE, TrainingSchedule, count
from offsim.programs.transformer import BF16, FP32, Subgroup
from offsim.states.placement import tiers_of

__all__ = [
    "ACCUMULATION",
    "GRADIENTS",
    "OPTIMIZER",
    "OPTIMIZER_STATE",
    "OffloadOptions",
    "OffloadSchedule",
    "ScheduleOptions",
    "TrainingSchedule",
    "count",
    "option",
]

OPTIMIZER = "zero_optimization.offload_optimizer"
"""DeepSpeed's section, as a path of keys."""
ACCUMULATION = "gradient accumulation buffer (bf16)"


class OffloadOptions(ScheduleOptions):
    """Options of schedules that can leave a part of the optimizer state on the GPU for good (TwinFlow)."""

    cpu_ratio: Number = option(
        1.0,
        "share of sub-groups on the CPU; the rest stays on the GPU",
        ge=0,
        le=1,
        tries=(0.0, 0.25, 0.5, 0.75, 1.0),
        deepspeed=f"{OPTIMIZER}.ratio",
        word="ratio",
    )


class OffloadSchedule(TrainingSchedule):
    """Optimizer state in host memory but for a share that stays on the GPU."""

    Options: ClassVar[type[ScheduleOptions]] = OffloadOptions
    placement_options: ClassVar[tuple[str, ...]] = ("cpu_ratio",)
    gathers_late: ClassVar[bool] = True
    deepspeed: ClassVar[dict[str, Any] | None] = {f"{OPTIMIZER}.device": "cpu", f"{OPTIMIZER}.pin_memory": True}

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """The first sub-groups on the CPU, the rest on the GPU, where an option leaves some there."""
        return tiers_of([(cls.optimizer_home, getattr(options, "cpu_ratio", 1.0)), (GPU, "rest")], subgroups)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        rank.host_memory.allocate(ACCUMULATION, BF16 * count(self.subgroups))

    def accumulate_on_host(self, rank: Rank, elements: int, first: bool) -> None:
        """Pass bf16 gradients through the pinned accumulation buffer, asynchronously on the reduce stream."""
        stream, nbytes = rank.reduce_stream, BF16 * elements
        if first:
            rank.d2h(stream, nbytes, "gradients to accumulation buffer")
            rank.h2d(stream, nbytes, "gradients back")
        else:
            rank.h2d(stream, nbytes, "accumulated gradients")
            rank.elementwise(stream, "d2d", 3 * nbytes, "add gradients")
            rank.d2h(stream, nbytes, "gradients to accumulation buffer")

    def drain_gradients(self, rank: Rank, elements: int) -> None:
        """Convert to fp32 on the GPU and copy to pinned memory, asynchronously on the reduce stream."""
        if elements:
            rank.elementwise(rank.reduce_stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
            rank.d2h(rank.reduce_stream, FP32 * elements, "fp32 gradients")

    def upload_and_cast(self, rank: Rank, subgroup: Subgroup, pinned: bool = True) -> Code:
        """fp32 parameters go to the GPU, which casts them; the host waits for the copy."""
        nbytes = FP32 * subgroup.elements
        yield rank.h2d(rank.stream("upload"), nbytes, "upload parameters", subgroup.index, pinned=pinned)
        nbytes += BF16 * subgroup.elements
        self.written(
            rank, subgroup, rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast parameters", subgroup.index)
        )

    def start_update(self, rank: Rank) -> Code:
        """The first sub-group on the CPU takes longer."""
        if self.off_gpu():
            yield rank.launch("first sub-group", rank.profile.host.update_start_s)

    def memory_of(self, rank: Rank, subgroup: Subgroup) -> str:
        """The memory tier in which the CPU updates a sub-group: its own, or host memory for state on storage."""
        tier = self.placed.optimizer[subgroup.index]
        return tier if rank.platform.kind_of(tier) == "memory" else HOST
