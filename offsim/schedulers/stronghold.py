"""STRONGHOLD (SC 2022): a window of layers on the GPU, and one CPU Adam a layer under backward.

After the paper; there is no release. Layers are in host memory in 16 bits beside the fp32 state, gradients land in as
many buffers as the window has layers, and the paper's CPU Adam is taken to use all cores of the rank.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, Bucket, Subgroup
from offsim.schedulers.base import ScheduleOptions, option
from offsim.schedulers.layers_in_host import LayersInHost
from offsim.states.pool import Pool


class StrongholdOptions(ScheduleOptions):
    """The paper picks the smallest window under which compute hides the copies."""

    window: Count = option(2, "layers on the GPU at once", tries=(2, 3, 4, 6, 8))


class Stronghold(LayersInHost):
    """Layers move in and out around compute; each is updated by the CPU as soon as its gradients have arrived."""

    name = "stronghold"
    Options = StrongholdOptions

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.layers_ahead = self.options.window
        largest = max(subgroup.elements for subgroup in self.subgroups)
        self.landing = Pool(rank.host_memory, "gradients that arrive (bf16)", self.options.window, BF16 * largest)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """To host memory in 16 bits; the last micro-step starts the layer's update."""
        ((index, elements),) = bucket.shares
        group, buffer = self.subgroups[index], self.landing.buffers()
        arrived = rank.move(
            BF16 * elements, "gpu", "host", "gradients", index, stream=rank.reduce_stream, allocates=buffer
        )
        done = rank.spawn("optimizer", self.update_layer(rank, group, arrived, first, last))
        rank.free_after(done, buffer)
        if last:
            self.written(rank, group, done)
        yield from ()

    def update_layer(self, rank: Rank, group: Subgroup, arrived: Operation, first: bool, last: bool) -> Code:
        yield from self.update_on_cpu(rank, group, [(arrived, group.elements)], first, last)
        if last:
            yield rank.downcast(group.elements, group.index, rank.thread("optimizer"))
