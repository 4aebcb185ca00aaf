"""SlideFormer (arXiv 2603.16428; repository at eeab7d0): layers in fp32 in host memory alone, moved in chunks.

Gradients that further micro-steps add up are in fp32; the code read has none. There is no clipping. The release has
all layer inputs but the last in host memory: `placement.activations: {tier: host}`.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Bucket
from offsim.schedulers.base import GRADIENTS, count
from offsim.schedulers.layers_in_host import LayersInHost, parts_of

CHUNK = 32 * 2**20
"""Elements that are cast, copied and updated at once."""


class SlideFormer(LayersInHost):
    """Two layers on the GPU. The CPU casts a chunk while the one before is copied, and updates chunks as they land."""

    name = "slideformer"
    parameter_bytes = 0
    gradients_with_state = False
    layers_ahead = 2
    updated: Operation | None = None
    """The end of the update that started last."""

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.drained: dict[int, Operation] = {}
        largest = max(subgroup.elements for subgroup in self.subgroups)
        rank.host_memory.allocate("staging layer (bf16, pinned)", BF16 * largest)
        if self.workload.training.micro_steps > 1:
            rank.host_memory.allocate(GRADIENTS, FP32 * count(self.subgroups))

    def upload(self, rank: Rank, part: Fetch) -> Operation:
        return rank.spawn("loader", self.cast_and_copy(rank, part))

    def cast_and_copy(self, rank: Rank, part: Fetch) -> Code:
        """Through the staging layer, which is free again with the last copy."""
        thread, stream = rank.thread("loader"), rank.stream("fetch")
        layer = part.layer
        yield rank.wait(*part.after, thread=thread, takes=part.memory)
        for chunk in parts_of(part.elements, CHUNK):
            yield rank.downcast(chunk, self.workload.subgroups_of_layers[layer][0], thread)
            copy = rank.move(BF16 * chunk, HOST, GPU, "fetch parameters", layer=layer, stream=stream, thread=thread)
        yield copy

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """Its gradients go where those of the layer after the next were: they have to have left."""
        restored = yield from super().restore(rank, layer, step, nbytes)
        return rank.all_of([restored, self.drained.get(layer + self.layers_ahead)])

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """In chunks, once the update of the layer before in backward has ended."""
        ((index, elements),) = bucket.shares
        behind, parts = [rank.reduce_stream.tail, self.updated], parts_of(elements, CHUNK)
        stream = rank.stream("gradients out")
        copies = [rank.d2h(stream, BF16 * part, "gradients", index, after=behind) for part in parts]
        self.drained[index - 1] = copies[-1]  # sub-group 0 is the embedding
        arrived = list(zip(copies, parts, strict=True))
        self.updated = rank.spawn("optimizer", self.update_on_cpu(rank, self.subgroups[index], arrived, first, last))
        if last:
            self.written(rank, self.subgroups[index], self.updated)
        yield from ()
