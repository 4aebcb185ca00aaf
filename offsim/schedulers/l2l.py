"""L2L (arXiv 2002.05645): one layer on the GPU, all micro-batches through it, then the next.

After the paper and ZeRO-Offload's account of it (arXiv 2101.06840): 28 B a parameter cross the link. Layers are in fp32
in host memory; backward brings m and v too, updates on the GPU and writes all three back. The paper keeps activations
in host memory: `placement.activations: {tier: host}`.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Bucket
from offsim.schedulers.base import ScheduleOptions, option
from offsim.schedulers.layers_in_host import LayersInHost


class L2LOptions(ScheduleOptions):
    """The paper's two algorithms."""

    window: Count = option(1, "layers on the GPU at once: 1, or 2 to copy beside compute (L2L-p)", tries=(1, 2))


class L2L(LayersInHost):
    """A layer comes, all micro-batches run through it, and in backward it is updated on the spot."""

    name = "l2l"
    Options = L2LOptions
    order = "layer"
    parameter_bytes = 0
    gradients_with_state = False

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.layers_ahead = self.options.window
        largest = max(subgroup.elements for subgroup in self.subgroups)
        rank.gpu_memory.allocate("p, m, v of layers (fp32)", self.state_bytes * self.options.window * largest)

    def upload(self, rank: Rank, part: Fetch) -> Operation:
        """4 B a parameter, cast on the GPU."""
        self.copy_up(rank, part, FP32)
        return rank.elementwise(rank.stream("fetch"), "conversion", (FP32 + BF16) * part.elements, "fp32 to bf16")

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """All micro-batches have run: Adam on the GPU, before the next layer's kernels."""
        ((index, elements),) = bucket.shares
        tier, nbytes = self.placed.optimizer[index], 2 * FP32 * elements
        fetched = rank.move(nbytes, tier, GPU, "fetch m, v", index, stream=rank.stream("fetch"))
        updated = rank.gpu_adam(elements, index, after=[rank.reduce_stream.tail, fetched])
        stored = rank.move(
            3 * FP32 * elements, GPU, tier, "write p, m, v", index, stream=rank.stream("store"), after=[updated]
        )
        self.written(rank, self.subgroups[index], stored)
        yield from ()
