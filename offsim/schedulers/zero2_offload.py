"""ZeRO-1 and ZeRO-2 with the optimizer on the CPU, as DeepSpeed releases them (stage_1_and_2.py).

The tiles, overlapped copies and delayed update of the ZeRO-Offload paper are not in that code. A rank's partition is a
contiguous range of the model; here every bucket has an equal part of it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from offsim.engine import Code
from offsim.inputs.fields import Flag
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket
from offsim.schedulers.base import ACCUMULATION, OffloadSchedule, ScheduleOptions, count, option


class Zero2OffloadOptions(ScheduleOptions):
    """Keys of DeepSpeed's configuration, and what differs between its versions."""

    overlap_comm: Flag = option(
        False,
        "gradients are reduced and copied beside compute; if not, on its stream (DeepSpeed's default)",
        tries=(False, True),
        deepspeed="zero_optimization.overlap_comm",
    )
    upload: Literal["cast_on_cpu", "cast_on_gpu"] = option(
        "cast_on_cpu",
        "cast_on_cpu: 2 B a parameter from pinned memory (DeepSpeed from 0.17.0); cast_on_gpu: 4 B, pageable",
    )


class Zero2Offload(OffloadSchedule):
    """Gradients to host memory during backward, one CPU Adam over the partition, then an all-gather of the model."""

    name = "zero2_offload"
    Options: ClassVar[type[ScheduleOptions]] = Zero2OffloadOptions
    stages: ClassVar[tuple[int, ...]] = (1, 2)
    optimizer_kinds = ("memory",)
    placement_options = ()

    def place(self, rank: Rank) -> None:
        super(OffloadSchedule, self).place(rank)
        if self.workload.training.micro_steps > 1:
            rank.host_memory.allocate(ACCUMULATION, BF16 * count(self.subgroups))
        if self.options.upload == "cast_on_cpu":
            rank.host_memory.allocate("upload buffer (bf16)", BF16 * count(self.subgroups))
        else:
            rank.gpu_memory.allocate("uploaded parameters (fp32)", FP32 * count(self.subgroups))
        if not self.options.overlap_comm:
            rank.reduce_stream = rank.compute_stream

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        elements = self.elements(bucket)
        if self.workload.training.zero_stage == 2 and not (first and last):
            if first:
                rank.d2h(rank.reduce_stream, BF16 * elements, "gradients to accumulation buffer")
            else:
                self.accumulate_on_host(rank, elements, first)
        if last:
            self.drain_gradients(rank, elements)
        yield from ()

    def update(self, rank: Rank) -> Code:
        yield from self.start_update(rank)
        for group in self.subgroups:
            yield rank.scale(group.elements, group.index)
            yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index])
            if self.options.upload == "cast_on_cpu":
                yield rank.downcast(group.elements, group.index)
                copied = rank.h2d(rank.stream("upload"), BF16 * group.elements, "upload parameters", group.index)
                self.written(rank, group, copied)
                yield copied
            else:
                yield from self.upload_and_cast(rank, group, pinned=False)
                yield rank.wait(rank.compute_stream)
        yield from self.gather_updated(rank)
