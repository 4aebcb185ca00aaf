"""What a scheduler is: where optimizer state lives, what happens to gradients, and the update loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

from pydantic import Field

from offsim.inputs.fields import Number, Section
from offsim.programs.rank import Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload

OPTIMIZER_STATE = "optimizer state p, m, v (fp32)"
GRADIENTS = "gradients (fp32)"


class SchedulerOptions(Section):
    """Options of a scheduler; each scheduler subclasses it with its own."""


def options_to_try(options: type[SchedulerOptions]) -> dict[str, tuple[Any, ...]]:
    """Return option -> values worth trying, for the options that declare them: `json_schema_extra={"try": [...]}`."""
    declared = {name: info.json_schema_extra for name, info in options.model_fields.items()}
    return {
        name: tuple(cast(Any, extra["try"]))
        for name, extra in declared.items()
        if isinstance(extra, dict) and "try" in extra
    }


class OffloadOptions(SchedulerOptions):
    """Options of schedulers that can leave a part of the optimizer state on the GPU for good (TwinFlow)."""

    cpu_ratio: Number = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of sub-groups on the CPU; the rest stays on the GPU",
        json_schema_extra={"try": [0.0, 0.25, 0.5, 0.75, 1.0]},
    )


class Scheduler(ABC):
    """One instance serves one rank. Methods that return a `Process` are that rank's host thread code."""

    name: ClassVar[str]
    Options: ClassVar[type[SchedulerOptions]] = SchedulerOptions
    carries_over: ClassVar[bool] = False
    """Whether an update leaves work to the next iteration, so that a preceding update must be simulated."""

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
