"""What a scheduler is: where optimizer state lives, what happens to gradients, and the update loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import Field

from offsim.inputs.fields import Number, Section
from offsim.programs.rank import Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload

OPTIMIZER_STATE = "optimizer state p, m, v (fp32)"
GRADIENTS = "gradients (fp32)"


class SchedulerOptions(Section):
    """Options of a scheduler; each scheduler subclasses it with its own."""


class OffloadOptions(SchedulerOptions):
    """Options of schedulers that can leave a part of the optimizer state on the GPU for good (TwinFlow)."""

    cpu_ratio: Number = Field(
        default=1.0, ge=0, le=1, description="share of sub-groups on the CPU; the rest stays on the GPU"
    )


class Scheduler(ABC):
    """One instance serves one rank. Methods that return a `Process` are that rank's host thread code."""

    name: ClassVar[str]
    Options: ClassVar[type[SchedulerOptions]] = SchedulerOptions
    carries_over: ClassVar[bool] = False
    """Whether an update leaves work to the next iteration, so that a preceding update must be simulated."""
    fixed_work: ClassVar[bool] = False
    """Whether the work that the host thread commands does not depend on when other work ends, as it does where a
    scheduler decides at run time. Of such a scheduler the least time that an iteration takes is known beforehand."""

    def __init__(self, options: SchedulerOptions, workload: Workload) -> None:
        self.workload = workload
        self.subgroups = workload.subgroups

    @abstractmethod
    def allocate(self, rank: Rank) -> None:
        """Take the memory that optimizer state and gradients hold throughout, on GPU and host."""

    @abstractmethod
    def flush(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Process:
        """Store the rank's share of a reduced bucket; `first` and `last` micro-step of an iteration."""

    @abstractmethod
    def update(self, rank: Rank) -> Process:
        """Update all of the rank's sub-groups."""


def accumulate_on_host(rank: Rank, elements: int, first: bool) -> None:
    """Pass bf16 gradients through the pinned accumulation buffer, asynchronously on the reduce stream."""
    stream, nbytes = rank.reduce_stream, BF16 * elements
    if first:
        rank.d2h(stream, nbytes, "gradients to accumulation buffer")
        rank.h2d(stream, nbytes, "gradients back")
    else:
        rank.h2d(stream, nbytes, "accumulated gradients")
        rank.elementwise(stream, "d2d", 3 * nbytes, "add gradients")
        rank.d2h(stream, nbytes, "gradients to accumulation buffer")


def drain_gradients(rank: Rank, elements: int) -> None:
    """Convert to fp32 on the GPU and copy to pinned memory, asynchronously on the reduce stream."""
    if elements:
        rank.elementwise(rank.reduce_stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
        rank.d2h(rank.reduce_stream, FP32 * elements, "fp32 gradients")


def reduce_norm(rank: Rank, subgroups: int) -> Process:
    """Before the update: the gradient norm, a scalar all-reduce per sub-group, each awaited."""
    for index in range(subgroups):
        yield rank.launch(f"norm {index}", rank.profile.host.subgroup_launch_s)
        reduced = rank.scalar_all_reduce()
        if reduced is not None:
            yield rank.synchronize(reduced)


def update_resident(rank: Rank, subgroups: list[Subgroup]) -> Process:
    """Sub-groups whose state lives on the GPU: one AdamW each and a cast into the bf16 parameters."""
    for subgroup in subgroups:
        rank.gpu_adam(subgroup.elements, subgroup.index)
        rank.elementwise(
            rank.compute_stream, "d2d", (FP32 + BF16) * subgroup.elements, "cast parameters", subgroup.index
        )
    yield rank.synchronize(rank.compute_stream)


def count(subgroups: list[Subgroup]) -> int:
    """Parameters of sub-groups."""
    return sum(s.elements for s in subgroups)
