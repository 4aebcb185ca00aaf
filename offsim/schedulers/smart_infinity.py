"""Smart-Infinity (HPCA 2024, arXiv 2403.06664), as its code at 00f5f28 on DeepSpeed 0.9.3 releases it.

Computational storage devices (CSD) hold and update the optimizer state, sub-group i device i mod #CSD. In backward a
bucket's gradients are written while the next one is filled; which device they go to is not modelled.
"""

from __future__ import annotations

from typing import Literal

from offsim.engine import Code, Operation
from offsim.inputs.fields import Flag, Number
from offsim.platform.platform import HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import OffloadSchedule, ScheduleOptions, count, option

TENSORS = ("p", "m", "v")


class SmartInfinityOptions(ScheduleOptions):
    """SmartUpdate (SU), with the paper's overlap (+O) and compression (+C)."""

    overlap: Flag = option(True, "writes run on into the next batch of sub-groups", tries=(True, False))
    compression: Number = option(1.0, "share of gradient bytes sent; 0.02 in the paper", gt=0, le=1, tries=(0.02,))
    exchange_dtype: Literal["fp16", "fp32"] = option("fp16", "on the shared link: fp16 as released, fp32 in the paper")


class SmartInfinity(OffloadSchedule):
    """Gradients go to the devices, parameters come back: p, m and v never cross the shared link."""

    name = "smart_infinity"
    Options = SmartInfinityOptions
    optimizer_kinds = ("csd",)
    optimizer_home = "csd"
    gradients_with_state = False
    placement_options = ()
    deepspeed = None
    sent: Operation | None = None

    @classmethod
    def approximates(cls, options: SmartInfinityOptions) -> str:
        return "compressed gradients" if options.compression < 1 else ""

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.tier = self.placed.optimizer[0]
        devices = rank.profile.tiers[self.tier].devices
        self.batches = [self.subgroups[i : i + devices] for i in range(0, len(self.subgroups), devices)]
        self.exchanged = BF16 if self.options.exchange_dtype == "fp16" else FP32
        self.compressed = self.exchanged * self.options.compression
        self.writes: dict[tuple[int, str], Operation] = {}
        rank.host_memory.allocate("updated parameters of a batch", self.exchanged * max(map(count, self.batches)))
        rank.tier(self.tier).allocate("gradients", self.compressed * count(self.subgroups))

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Cast or compressed on the GPU; a blocking copy to host memory, then a write behind."""
        elements = self.elements(bucket)
        self.accumulate_on_host(rank, elements, first)
        if last:
            nbytes = self.compressed * elements
            rank.elementwise(rank.reduce_stream, "conversion", BF16 * elements + nbytes, "cast or compress")
            yield rank.d2h(rank.reduce_stream, nbytes, "gradients to be sent")
            yield self.sent
            self.sent = rank.move(nbytes, HOST, self.tier, "gradients")

    def update(self, rank: Rank) -> Code:
        yield self.sent
        for batch in self.batches:
            updates = [rank.spawn(f"device {i}", self.update_in(rank, i, group)) for i, group in enumerate(batch)]
            yield rank.wait(*updates)
            if not self.options.overlap:
                yield rank.wait(*self.writes.values())
            for subgroup in batch:
                yield from self.upload(rank, subgroup)
        yield rank.wait(*self.writes.values())

    def update_in(self, rank: Rank, i: int, group: Subgroup) -> Code:
        """A device's thread: read each tensor once its buffer has been written, update, write, send parameters."""
        size, index, thread = group.elements, group.index, rank.thread(f"device {i}")
        device = rank.inside(self.tier, i, thread)
        yield device.read(self.compressed * size, "read gradients", index)
        for tensor in TENSORS:
            yield self.writes.get((i, tensor))
            yield device.read(FP32 * size, f"read {tensor}", index)
        yield device.adam(size, index)
        for tensor in TENSORS:
            behind = rank.stream(f"device {i} {tensor}")
            self.writes[i, tensor] = device.write(FP32 * size, f"write {tensor}", index, behind)
        sent = self.exchanged * size
        yield rank.move(sent, self.tier, HOST, "updated parameters", index, stream=thread, thread=thread)

    def upload(self, rank: Rank, subgroup: Subgroup) -> Code:
        """To the GPU, which casts what was sent in 32 bits."""
        if self.exchanged == FP32:
            yield from self.upload_and_cast(rank, subgroup)
        else:
            copied = rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
            self.written(rank, subgroup, copied)
            yield copied
