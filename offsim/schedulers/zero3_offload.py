"""DeepSpeed ZeRO-3 with the optimizer on the CPU: the baseline of the Deep Optimizer States paper (section 3)."""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import OffloadSchedule, ScheduleOptions
from offsim.schedulers.zero3_options import OverlapOptions, TwinFlowOptions, Zero3OffloadOptions, flush_of
from offsim.states.placement import tiers_of


class Zero3Offload(OffloadSchedule):
    """Blocking gradient flushes; a strictly serial update loop on the CPU. `cpu_ratio` < 1 is TwinFlow."""

    name = "zero3_offload"
    Options: ClassVar[type[ScheduleOptions]] = Zero3OffloadOptions
    parameter_kinds: ClassVar[tuple[str, ...]] = (GPU, "memory")

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """The sub-groups that TwinFlow leaves on the GPU come last, or first in newer versions."""
        if isinstance(options, TwinFlowOptions) and options.gpu_subgroups == "first":
            return tiers_of([(GPU, 1 - options.cpu_ratio), (cls.optimizer_home, "rest")], subgroups)
        return super().default_tiers(options, subgroups)

    @classmethod
    def deepspeed_notes(cls, options: Any) -> list[str]:
        if flush_of(options) == "asynchronous":
            return ["needs a build that copies gradients without blocking the host, from 0.19.5"]
        return ["for builds whose gradient copies block the host, pin_memory can be true as well"]

    def place(self, rank: Rank) -> None:
        super().place(rank)
        if isinstance(self.options, OverlapOptions) and not self.options.overlap_comm:
            rank.reduce_stream = rank.compute_stream

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        if last:
            large = self.off_gpu_elements(bucket, large=True)
            yield from self.store_gradients(rank, self.off_gpu_elements(bucket), large)

    def store_gradients(self, rank: Rank, elements: int, large: int = 0) -> Code:
        """The host thread stands still until the gradients are in host memory, unless that is asynchronous.

        `large` of the elements are copied into fresh pages.
        """
        how = flush_of(self.options)
        if not elements:
            return
        if how == "host_cast":
            nbytes, fresh = BF16 * elements, BF16 * large
            yield rank.d2h(rank.reduce_stream, nbytes, "gradients", pinned=False, fresh=fresh)
            yield rank.upcast(elements, -1)
        elif how == "asynchronous":
            self.drain_gradients(rank, elements)
        else:
            nbytes = FP32 * elements
            rank.elementwise(rank.reduce_stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
            yield rank.d2h(rank.reduce_stream, nbytes, "fp32 gradients", pinned=how == "staged")
            if how == "staged":
                yield rank.wait(rank.compute_stream, rank.collective_stream)
                yield rank.host_copy(nbytes, "gradients out of the staging buffer")

    def update(self, rank: Rank) -> Code:
        yield from self.start_update(rank)
        for subgroup in self.off_gpu():
            yield from self.swap_in(rank, subgroup)
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index, self.memory_of(rank, subgroup))
            yield from self.store_parameters(rank, subgroup)
            yield from self.swap_out(rank, subgroup)
        yield from self.update_resident(rank, self.on(GPU))

    def swap_in(self, rank: Rank, subgroup: Subgroup) -> Code:
        """Before the sub-group's Adam, where its state is on storage."""
        yield from ()

    def swap_out(self, rank: Rank, subgroup: Subgroup) -> Code:
        """After the sub-group's parameters are stored, where its state is on storage."""
        yield from ()

    def store_parameters(self, rank: Rank, subgroup: Subgroup) -> Code:
        """Cast on the CPU, into fresh pageable memory that is copied to the GPU, or into parameters in host memory."""
        on_gpu = self.placed.parameters == GPU
        cast = rank.downcast(subgroup.elements, subgroup.index, fresh=on_gpu)
        self.written(rank, subgroup, cast)
        yield cast
        if on_gpu:
            nbytes = BF16 * subgroup.elements
            copied = rank.h2d(rank.stream("upload"), nbytes, "upload parameters", subgroup.index, pinned=False)
            self.written(rank, subgroup, copied)
            yield copied
