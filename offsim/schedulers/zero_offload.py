"""ZeRO-Offload as its paper describes it (arXiv 2101.06840, sections 4 and 5); `zero2_offload` is the released code.

16-bit gradients cross the link in backward; the CPU updates tile by tile, and uploads each tile while it updates the
next one. The delayed update runs under forward and backward of the next iteration, on parameters one step old. Where
the paper is silent: gradients stay in 16 bits on the host and Adam reads them so, further micro-steps are added on the
GPU as released, and a delayed update uploads from a copy of the whole partition when backward has ended.
"""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count, Flag
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, Bucket, Subgroup, Workload
from offsim.schedulers.base import OffloadSchedule, ScheduleOptions, count, option
from offsim.schedulers.zero2_offload import Zero2Offload
from offsim.states.placement import Placed


class ZeroOffloadOptions(ScheduleOptions):
    """The paper turns the delayed update on after 40 steps."""

    delayed_update: Flag = option(
        False, "the CPU updates under the next forward and backward, one step late", tries=(False, True)
    )
    tile_elements: Count = option(
        2**27, "parameters that the CPU updates before it uploads them (DeepSpeed 0.3, csrc/includes/cpu_adam.h)"
    )


class ZeroOffload(Zero2Offload):
    """Gradients to host memory beside backward; the upload of a tile overlaps the CPU Adam of the next one."""

    name = "zero_offload"
    Options = ZeroOffloadOptions
    stages = (2,)
    gradients_with_state = False
    deepspeed: ClassVar[dict[str, Any] | None] = None

    def __init__(self, options: ZeroOffloadOptions, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.delayed: list[Operation] = []
        """The end of each sub-group's update that is under way."""

    @classmethod
    def staleness(cls, options: Any) -> int:
        return int(options.delayed_update)

    def place(self, rank: Rank) -> None:
        super(OffloadSchedule, self).place(rank)
        owned = count(self.subgroups)
        late = self.options.delayed_update
        rank.host_memory.allocate("gradients (bf16)", (1 + late) * BF16 * owned)
        uploaded = owned if late else min(2 * self.options.tile_elements, owned)
        rank.host_memory.allocate("upload buffer (bf16)", BF16 * uploaded)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        elements = self.elements(bucket)
        if first:
            rank.d2h(rank.reduce_stream, BF16 * elements, "gradients")
        else:
            self.accumulate_on_host(rank, elements, first)
        yield from ()

    def update(self, rank: Rank) -> Code:
        if not self.options.delayed_update:
            yield from self.start_update(rank)
            for group in self.subgroups:
                yield from self.update_and_upload(rank, group)
            yield rank.wait(rank.stream("upload"))
        else:
            for group, end in zip(self.subgroups, self.delayed, strict=False):
                yield end
                copied = rank.h2d(rank.stream("upload"), BF16 * group.elements, "upload parameters", group.index)
                self.written(rank, group, copied, update=end.iteration)
                yield copied
            self.delayed = [rank.spawn("optimizer", self.update_late(rank, group)) for group in self.subgroups]
        yield from self.gather_updated(rank)

    def update_and_upload(self, rank: Rank, group: Subgroup) -> Code:
        """Two tile buffers: a tile's update waits for the upload of the tile before the last."""
        uploads: list[Operation] = []
        for done in range(0, group.elements, self.options.tile_elements):
            yield rank.wait(*uploads[-2:-1])
            tile = min(self.options.tile_elements, group.elements - done)
            yield rank.cpu_adam(tile, group.index, self.placed.optimizer[group.index])
            uploads.append(rank.h2d(rank.stream("upload"), BF16 * tile, "upload parameters", group.index))
        self.written(rank, group, uploads[-1])

    def update_late(self, rank: Rank, group: Subgroup) -> Code:
        """On the optimizer's thread."""
        thread = rank.thread("optimizer")
        yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index], thread=thread)
