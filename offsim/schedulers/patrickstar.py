"""PatrickStar (arXiv 2108.05818): parameters in chunks that move by furthest next use, optimizer state on the CPU.

Gradients take the place of their layer's parameters. Not said by the paper and taken here: chunks end with their layer,
copies are pinned and block, further micro-steps add up gradients in host memory, the margin holds first layers. Room
for chunks is what the warm-up iteration leaves free at its peak, not at each moment.
"""

from __future__ import annotations

from typing import ClassVar

from offsim.engine import Code
from offsim.inputs.fields import Count, Flag
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.training import PARAMETERS
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import ACCUMULATION, OPTIMIZER_STATE, count, option
from offsim.schedulers.chunks import CHUNKS, Chunked, ChunkOptions


class PatrickStarOptions(ChunkOptions):
    """What the room on the GPU is for."""

    gpu_chunks: Count | None = option(None, "chunks on the GPU; none: all that the warm-up leaves room for")
    margin: Flag = option(True, "room that chunks leave holds optimizer state", tries=(True, False))


class PatrickStar(Chunked):
    """Chunks come when a layer needs them; the CPU updates what has no optimizer state on the GPU."""

    name = "patrickstar"
    Options = PatrickStarOptions
    gradients_with_state = False
    optimizer_kinds: ClassVar[tuple[str, ...]] = ("memory",)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.resident: set[int] = set()  # sub-groups whose optimizer state is on the GPU
        if self.workload.training.micro_steps > 1:
            rank.host_memory.allocate(ACCUMULATION, BF16 * count(self.subgroups))

    def bring_back(self, rank: Rank, layer: int) -> Code:
        """A layer's chunks leave the GPU if they are there."""
        for chunk in self.chunks(layer):
            if chunk in self.cache:
                self.cache.drop(chunk)
                yield self.evict(rank, chunk, rank.compute_stream)

    def end_warm_up(self, rank: Rank) -> None:
        """What has been free throughout is for chunks of parameters, then for optimizer state."""
        gpu, size = rank.gpu_memory, self.options.chunk_bytes
        gpu.free(CHUNKS, self.each * size)
        free = gpu.capacity - gpu.peak + self.each * size
        every = self.each * self.workload.model.layers
        chunks = min(max(self.options.gpu_chunks or int(free / size), self.each), every)
        self.make_room(rank, chunks)
        if not self.options.margin or chunks < every or self.workload.training.micro_steps > 1:
            return
        state = 3 * FP32 * self.subgroups[1].elements
        for index in range(1, 1 + min(int((free - chunks * size) / state), self.workload.model.layers)):
            self.resident.add(index)
            rank.tier(self.placed.optimizer[index]).free(OPTIMIZER_STATE, state)
            rank.tier(self.placed.parameters).free(PARAMETERS, self.slice)
            gpu.allocate(OPTIMIZER_STATE, state)

    def home_of(self, subgroup: Subgroup) -> str:
        return GPU if subgroup.index in self.resident else super().home_of(subgroup)

    def state_tier(self, subgroup: Subgroup) -> str:
        return GPU if subgroup.index in self.resident else super().state_tier(subgroup)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """In the chunk of the parameters; to host memory where there are more to come, or no chunk."""
        yield from super().gradient(rank, bucket, first, last)
        ((index, elements),) = bucket.shares
        if not last or index in (0, len(self.subgroups) - 1):
            yield rank.d2h(rank.reduce_stream, BF16 * elements, "gradients")
        if not last:
            yield rank.upcast(elements, index)

    def update(self, rank: Rank) -> Code:
        if rank.iteration == 1:
            for layer in range(self.workload.model.layers):
                yield from self.bring_back(rank, layer)
            self.end_warm_up(rank)
        for group in self.subgroups:
            if group.index in self.resident:
                continue
            yield from self.bring_back(rank, group.index - 1)
            yield rank.upcast(group.elements, group.index)
            yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index])
            cast = rank.downcast(group.elements, group.index)
            self.written(rank, group, cast)
            yield cast
        yield from self.update_resident(rank, [self.subgroups[index] for index in sorted(self.resident)])
