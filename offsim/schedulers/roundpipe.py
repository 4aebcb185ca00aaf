"""RoundPipe (arXiv 2604.27085; release 0.1.1) without its pipeline: each GPU runs all layers.

16-bit layers in pinned host memory, fp32 optimizer state beside them, all micro-batches through a layer before the
next, and a thread that updates one iteration behind. Of its pipeline, stages of several layers on GPUs in turn and
uploads cut between activations, nothing is modelled. `placement.activations: {tier: host}` as released; its gradients
are not clipped.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Flag
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, Bucket, Subgroup
from offsim.schedulers.base import ScheduleOptions, count, option
from offsim.schedulers.layers_in_host import LayersInHost
from offsim.states.pool import pinned_bytes


class RoundPipeOptions(ScheduleOptions):
    """An argument of its `step`."""

    is_async: Flag = option(
        True, "update beside the next iteration, whose parameters are one update old", tries=(True, False)
    )


class RoundPipe(LayersInHost):
    """The optimizer's thread publishes the last update layer by layer, converts gradients, and updates."""

    name = "roundpipe"
    Options = RoundPipeOptions
    order = "layer"
    lag = 1
    layers_ahead = 2
    keeps_last_layers = False
    updated: Operation | None = None
    """The end of the update that started last."""

    @classmethod
    def staleness(cls, options: RoundPipeOptions) -> int:
        return cls.lag if options.is_async else 0

    @classmethod
    def updates_early(cls, options: RoundPipeOptions) -> bool:
        return False

    def place(self, rank: Rank) -> None:
        super().place(rank)
        rank.host_memory.allocate("gradients (bf16, pinned)", BF16 * count(self.subgroups))
        tensors = [BF16 * elements for elements in self.workload.shares]
        rounded = sum(pinned_bytes(nbytes) - nbytes for nbytes in tensors)
        rank.host_memory.allocate("pinned tensors rounded up to powers of two", 2 * rounded)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        ((index, elements),) = bucket.shares
        rank.d2h(rank.stream("gradients out"), BF16 * elements, "gradients", index, after=[rank.reduce_stream.tail])
        yield from ()

    def update(self, rank: Rank) -> Code:
        """Wait for the last update, then hand over what publishes it and what makes the next."""
        yield self.updated
        arrived = rank.stream("gradients out").tail
        if self.options.is_async:
            self.publish(rank, rank.iteration - 1)
        self.updated = rank.spawn("optimizer", self.step(rank, arrived))
        if not self.options.is_async:
            self.publish(rank, rank.iteration)
            yield rank.wait(*(block.since for block in rank.parameters))

    def publish(self, rank: Rank, iteration: int) -> None:
        """An iteration's update into the 16-bit parameters, layer by layer."""
        for group in self.subgroups:
            self.written(rank, group, rank.spawn("optimizer", self.cast(rank, group)), iteration)

    def cast(self, rank: Rank, group: Subgroup) -> Code:
        yield rank.downcast(group.elements, group.index, rank.thread("optimizer"))

    def step(self, rank: Rank, arrived: Operation | None) -> Code:
        thread = rank.thread("optimizer")
        yield arrived
        for group in reversed(self.subgroups):
            yield rank.upcast(group.elements, group.index, thread)
        for group in self.subgroups:
            yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index], thread)
