"""GreedySnake (arXiv 2512.17570): SSD-offloaded training that runs all micro-batches of a layer before the next layer.

Modelled after its published description; no code is available. A linear program picks the share of each layer's update
that slips into the next forward; here it is an option to tune. Gradients cross the link in 16 bits; layers' inputs go
to host memory, all but the last layer's.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count, Number
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import count, option
from offsim.schedulers.prefetching import Prefetching, PrefetchingOptions
from offsim.states.pool import Pool


class GreedySnakeOptions(PrefetchingOptions):
    """What the paper's linear program decides."""

    late: Number = option(
        0.25, "share of each layer's update that slips into the next forward", ge=0, le=1, tries=(0.0, 0.25, 0.5, 0.75)
    )
    state_buffers: Count = option(3, "layers whose p, m and v are in host memory at once", tries=(2, 3, 6))


class GreedySnake(Prefetching):
    """Each layer's update runs beside backward, and a share of it beside the next forward, before its layer."""

    name = "greedysnake"
    Options = GreedySnakeOptions
    by_layer = True
    order = "layer"

    @classmethod
    def updates_early(cls, options: GreedySnakeOptions) -> bool:
        return options.late < 1

    def place(self, rank: Rank) -> None:
        super().place(rank)
        largest = max(layer.elements for layer in self.subgroups)
        self.states = Pool(rank.host_memory, "p, m, v in flight (fp32)", self.options.state_buffers, 3 * FP32 * largest)
        rank.host_memory.allocate("gradients (bf16)", BF16 * count(self.subgroups))

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """The sum over all micro-batches goes to host memory once, and starts the layer's update."""
        arrived = rank.d2h(rank.reduce_stream, BF16 * self.elements(bucket), "gradients")
        for index, _ in bucket.shares:
            if self.options.late < 1:
                self.update_share(rank, self.subgroups[index], 1 - self.options.late, arrived)
        yield from ()

    def update(self, rank: Rank) -> Code:
        """What slips into the next forward, in its order; each layer waits for its own."""
        for layer in self.subgroups:
            if self.options.late:
                self.update_share(rank, layer, self.options.late, None)
        yield from ()

    def update_share(self, rank: Rank, layer: Subgroup, share: float, arrived: Operation | None) -> None:
        """Update a share of a layer: reads, Adam and writes run beside those of other layers."""
        elements = share * layer.elements
        read = self.read_state(rank, layer, elements, allocates=self.states.buffers())
        updated = rank.spawn("optimizer", self.adam(rank, layer, elements, [arrived, read]))
        self.written(rank, layer, rank.spawn("writer", self.write(rank, layer, elements, updated)))

    def adam(self, rank: Rank, layer: Subgroup, elements: float, needed: list[Operation | None]) -> Code:
        thread = rank.thread("optimizer")
        yield from needed
        yield rank.upcast(elements, layer.index, thread)
        yield rank.cpu_adam(elements, layer.index, thread=thread)
        yield rank.downcast(elements, layer.index, thread)

    def write(self, rank: Rank, layer: Subgroup, elements: float, updated: Operation) -> Code:
        yield updated
        thread = rank.thread("writer")
        stored = self.write_parameters(rank, layer, elements, thread=thread)
        self.write_state(rank, layer, elements, thread=thread, frees=self.states.buffers())
        yield stored
