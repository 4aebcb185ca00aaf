"""MegaTrain (arXiv 2604.05091; repository at 919520f): 16-bit layers, m and v in host memory; no fp32 parameters.

Forward streams layers through two buffers. Backward takes blocks of four layers: it loads and runs them forward again,
then loads each a third time to recompute it and go back: five units of compute in place of four. A block's inputs
alone are kept in reality, every layer's here. CPU Adam is taken to be as fast as with fp32 parameters.
"""

from __future__ import annotations

from typing import Any

from offsim.engine import Code, Operation
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Bucket, cost
from offsim.schedulers.base import count
from offsim.schedulers.layers_in_host import LayersInHost
from offsim.states.pool import Pool

BLOCK = 4
"""Layers between checkpoints."""
SLABS = 12
"""Pinned buffers that gradients land in; one CPU thread adds them up."""
ADD_BYTES = 3
"""An addition of 16-bit numbers moves as many bytes as a copy of 3: two are read, one is written."""


class MegaTrain(LayersInHost):
    """Layers stream in three times, gradients stream out, and the optimizer overlaps nothing."""

    name = "megatrain"
    approximation = "no fp32 parameters"
    state_bytes = 2 * FP32
    gradients_with_state = False
    layers_ahead = 2
    keeps_last_layers = False

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return False

    def place(self, rank: Rank) -> None:
        super().place(rank)
        held = BF16 * count(self.subgroups)
        rank.host_memory.allocate("flat copies of layers (bf16, pinned)", held)
        rank.host_memory.allocate("gradients (bf16)", held)
        largest = max(subgroup.elements for subgroup in self.subgroups)
        self.slabs = Pool(rank.host_memory, "gradient slabs (pinned)", SLABS, BF16 * largest)
        self.forward = cost(self.workload.layer_forward(), rank.profile.gpu)

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """Before a block's backward: its layers again, from the first."""
        restored = yield from super().restore(rank, layer, step, nbytes)
        if (layer + 1) % BLOCK == 0 or layer == self.workload.model.layers - 1:
            behind = [None, rank.compute_stream.tail]
            for again in range(layer - layer % BLOCK, layer + 1):
                loaded = yield from self.fetch(
                    rank, Fetch(again, "recompute", self.workload.layer_elements, [behind[-2]])
                )
                behind.append(rank.compute(f"layer {again} again", self.forward, again, after=[loaded]))
        return restored

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """The host waits for a free slab."""
        ((index, elements),) = bucket.shares
        yield rank.wait(takes=self.slabs.buffers())
        copy = rank.d2h(rank.stream("gradients out"), BF16 * elements, "gradients", index, [rank.reduce_stream.tail])
        self.added = rank.spawn("adder", self.add(rank, copy, elements))
        rank.free_after(self.added, self.slabs.buffers())

    def add(self, rank: Rank, copy: Operation, elements: int) -> Code:
        yield copy
        yield rank.host_copy(ADD_BYTES * elements, "add gradients", rank.thread("adder"))

    def update(self, rank: Rank) -> Code:
        """Clip, Adam, and one thread that copies the parameters into the flat copies."""
        yield rank.wait(rank.compute_stream, self.added)
        for group in self.subgroups:
            yield rank.scale(group.elements, group.index)
        for group in self.subgroups:
            yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index])
        for group in self.subgroups:
            copied = rank.host_copy(BF16 * group.elements, "refill flat copies")
            self.written(rank, group, copied)
            yield copied
