"""STRONGHOLD (SC 2022): a window of layers on the GPU, and one CPU Adam a layer under backward."""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code
from offsim.inputs.fields import Count
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, Bucket, Subgroup
from offsim.schedulers.base import ACCUMULATION, ScheduleOptions, TrainingSchedule, count, option


class StrongholdOptions(ScheduleOptions):
    """The paper picks the smallest window under which compute hides the copies."""

    window: Count = option(2, "layers on the GPU at once", tries=(2, 3, 4, 6, 8))


class Stronghold(TrainingSchedule):
    """Layers move in and out around compute; each is updated by the CPU as soon as its gradients have arrived."""

    name = "stronghold"
    Options = StrongholdOptions
    by_layer = True
    parameter_home = "host"
    parameter_kinds: ClassVar[tuple[str, ...]] = ("memory",)
    optimizer_kinds: ClassVar[tuple[str, ...]] = ("memory",)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.layers_ahead = self.options.window
        if self.workload.training.micro_steps > 1:
            rank.host_memory.allocate(ACCUMULATION, BF16 * count(self.subgroups))

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """To host memory in 16 bits, where further micro-steps are added up and the last one starts the update."""
        arrived = rank.d2h(rank.reduce_stream, BF16 * self.elements(bucket), "gradients")
        for index, _ in bucket.shares:
            layer = self.subgroups[index]
            done = rank.spawn("optimizer", self.update_layer(rank, layer, arrived, last))
            if last:
                self.written(rank, layer, done)
        yield from ()

    def update_layer(self, rank: Rank, layer: Subgroup, arrived: Any, last: bool) -> Code:
        thread = rank.thread("optimizer")
        yield arrived
        yield rank.upcast(layer.elements, layer.index, thread)
        if last:
            yield rank.cpu_adam(layer.elements, layer.index, thread=thread)
            yield rank.downcast(layer.elements, layer.index, thread)

    def before_update(self, rank: Rank) -> Code:
        """No global norm: updates have begun in backward."""
        yield from ()

    def update(self, rank: Rank) -> Code:
        """Updates run on; the next forward waits layer by layer."""
        yield from ()
