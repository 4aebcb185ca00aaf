"""What schedules with optimizer state on storage share: swap buffers in pinned host memory, and handles.

After deepspeed/runtime/swap_tensor, 0.16.2 to 0.19.6. A handle of the asynchronous I/O library works through its
requests in order, and waiting for a handle waits for all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import model_validator

from offsim.engine import Operation, Server, Stream
from offsim.inputs.errors import Expected
from offsim.inputs.fields import Count, Number
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Subgroup
from offsim.schedulers.base import OPTIMIZER, OffloadOptions, ScheduleOptions, option
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.states.pool import pinned_bytes


class SwapOptions(OffloadOptions):
    """Swap buffers, each of the largest sub-group in fp32, in pinned memory of a power of two."""

    buffer_count: Count | None = option(
        None,
        "swap buffers of a rank; none: the fewest that serve",
        deepspeed=f"{OPTIMIZER}.buffer_count",
        deepspeed_default=4,
    )
    host_share: Number | None = option(
        None, "share of host memory for accumulation and swap buffers, in place of buffer_count", gt=0, le=1
    )

    @property
    def least_buffers(self) -> int:
        """p, m, v and the gradient of one sub-group."""
        return 4

    @model_validator(mode="after")
    def _buffers_suffice(self) -> Self:
        if self.buffer_count is not None and self.buffer_count < self.least_buffers:
            raise Expected(f"at least {self.least_buffers} with these options", at=("buffer_count",))
        return self


class Swapping(Zero3Offload):
    """Optimizer state of sub-groups on storage passes through swap buffers in host memory."""

    Options: ClassVar[type[ScheduleOptions]] = SwapOptions
    optimizer_kinds: ClassVar[tuple[str, ...]] = (GPU, "memory", "storage")
    optimizer_home = "nvme"
    deepspeed: ClassVar[dict[str, Any] | None] = {f"{OPTIMIZER}.device": "nvme"}

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.largest = max(subgroup.elements for subgroup in self.subgroups)
        size = self.pinned(FP32 * self.largest)
        self.buffers = self.options.buffer_count or self.options.least_buffers
        if self.options.host_share is not None:
            share = self.options.host_share * rank.profile.host.memory_bytes / rank.platform.layout.per_node
            room = share - BF16 * self.workload.partition
            self.buffers = max(int(room // size), self.buffers)
        rank.host_memory.allocate("swap buffers (pinned)", self.buffers * size)

    def pinned(self, nbytes: float) -> float:
        """Bytes of host memory that a pinned buffer of so many takes."""
        return pinned_bytes(nbytes)

    def tier_of(self, subgroup: Subgroup) -> str:
        """The tier of a sub-group's optimizer state."""
        return self.placed.optimizer[subgroup.index]

    def stored(self, rank: Rank, subgroup: Subgroup) -> bool:
        """Whether the sub-group's optimizer state is on storage."""
        return rank.platform.kind_of(self.tier_of(subgroup)) == "storage"

    def swapped(self, rank: Rank) -> list[Subgroup]:
        """Sub-groups whose optimizer state is on storage."""
        return [subgroup for subgroup in self.subgroups if self.stored(rank, subgroup)]

    @classmethod
    def deepspeed_notes(cls, options: Any) -> list[str]:
        return []

    def handles(self, rank: Rank, kind: str) -> list[Stream]:
        """The handles for `read` or `write` of all tiers in use."""
        return [rank.stream(f"{tier} {kind}") for tier in dict.fromkeys(map(self.tier_of, self.subgroups))]

    def locks(self, rank: Rank, handle: str) -> tuple[Server, ...]:
        """What a request of a handle (tier and `read` or `write`) holds while it runs."""
        return ()

    def read(self, rank: Rank, nbytes: float, subgroup: Subgroup, name: str) -> Operation:
        """Submit a read of a sub-group's state to its tier's handle."""
        tier = self.tier_of(subgroup)
        stream = rank.stream(f"{tier} read")
        return rank.move(nbytes, tier, HOST, name, subgroup.index, stream=stream, holds=self.locks(rank, stream.name))

    def write(self, rank: Rank, nbytes: float, subgroup: Subgroup, name: str) -> Operation:
        """Submit a write of a sub-group's state to its tier's handle."""
        tier = self.tier_of(subgroup)
        stream = rank.stream(f"{tier} write")
        return rank.move(nbytes, HOST, tier, name, subgroup.index, stream=stream, holds=self.locks(rank, stream.name))
