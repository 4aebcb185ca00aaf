"""LLMQ (arXiv 2512.15306; repository at b77d969) in bf16: master, m and v in pinned host memory, updated on the GPU.

Layers are in host memory or, with `placement.parameters: gpu`, on the GPU; gradients are added up there in 16 bits.
The time of Adam is that of fp32 state whatever the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16, FP32, Bucket, Workload
from offsim.schedulers.base import ScheduleOptions, count, option
from offsim.schedulers.layers_in_host import LayersInHost, parts_of
from offsim.states.placement import Placed

BUFFERS = 2
"""Parts of at most a layer whose state is on the GPU at once."""


class LlmqOptions(ScheduleOptions):
    """How the GPU reaches the state."""

    access: Literal["double_buffer", "zero_copy"] = option(
        "double_buffer",
        "double_buffer: copies through two buffers of a layer; zero_copy: kernels read and write host memory at once",
    )
    state: Literal["fp32", "bf16"] = option("fp32", "format of master, m and v")


class Llmq(LayersInHost):
    """Gradients never leave the GPU; the state comes up layer by layer, is updated, and goes back."""

    name = "llmq"
    Options = LlmqOptions
    parameter_kinds: ClassVar[tuple[str, ...]] = (GPU, "memory")
    gradients_with_state = False
    layers_ahead = 2
    stored: Sequence[Operation | None] = (None,) * BUFFERS
    """The last writes of state, of as many parts as there are buffers."""

    @classmethod
    def approximates(cls, options: LlmqOptions) -> str:
        return "" if options.state == "fp32" else "optimizer state in bf16"

    def __init__(self, options: Any, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.state_bytes = 3 * (FP32 if options.state == "fp32" else BF16)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        rank.gpu_memory.allocate("gradients (bf16)", BF16 * count(self.subgroups))
        if self.options.access == "double_buffer":
            buffers = BUFFERS * self.state_bytes * self.workload.layer_elements
            rank.gpu_memory.allocate("buffers of optimizer state", buffers)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        rank.elementwise(rank.reduce_stream, "d2d", 3 * BF16 * self.elements(bucket), "accumulate gradients")
        yield from ()

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return False

    def before_update(self, rank: Rank) -> Code:
        yield from TrainingSchedule.before_update(self, rank)

    def update(self, rank: Rank) -> Code:
        """Up, Adam, down; a layer's state comes into the buffer that the one before the last has left."""
        for group in self.subgroups:
            for part in parts_of(group.elements, self.workload.layer_elements):
                cast = self.update_part(rank, group.index, part)
            self.written(rank, group, cast)
        yield rank.wait(rank.stream("state up"), rank.stream("state down"), rank.compute_stream)

    def update_part(self, rank: Rank, index: int, elements: float) -> Operation:
        up, down, nbytes = rank.stream("state up"), rank.stream("state down"), self.state_bytes * elements
        tier, home = self.placed.optimizer[index], self.placed.parameters
        fetched = rank.move(nbytes, tier, GPU, "fetch p, m, v", index, stream=up, after=[self.stored[-BUFFERS]])
        updated = rank.gpu_adam(elements, index, after=[fetched])
        cast = rank.elementwise(rank.compute_stream, "d2d", (FP32 + BF16) * elements, "cast parameters", index)
        behind = [updated] if self.options.access == "double_buffer" else [self.stored[-1]]
        stored = rank.move(nbytes, GPU, tier, "write p, m, v", index, stream=down, after=behind)
        self.stored = [*self.stored[1:], stored]
        if home != GPU:
            return rank.move(BF16 * elements, GPU, home, "store parameters", index, stream=down, after=[cast])
        return cast
