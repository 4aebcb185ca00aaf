"""What systems have in common whose layers live in host memory and visit the GPU around their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from offsim.engine import Code, MemoryChange, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16


class LayersInHost(TrainingSchedule):
    """A window of layers on the GPU, copied asynchronously on a stream of their own.

    On several GPUs each uploads its slice of a layer, and all gather it.
    """

    by_layer = True
    parameter_home = HOST
    parameter_kinds: ClassVar[tuple[str, ...]] = ("memory",)
    optimizer_kinds: ClassVar[tuple[str, ...]] = ("memory",)
    released: Operation | None = None
    """The kernels after which a layer gave back its place last."""

    def release(self, rank: Rank, layer: int, pass_: str, after: Operation) -> None:
        super().release(rank, layer, pass_, after)
        self.released = after

    def fetch(
        self,
        rank: Rank,
        layer: int,
        pass_: str,
        elements: int,
        after: Sequence[Operation | None],
        memory: Sequence[MemoryChange],
    ) -> Code:
        """In backward, into the place of the layer that was released last."""
        ranks = self.workload.training.data_parallel
        behind = [*after, self.released] if pass_ == "backward" else after
        uploaded = self.upload(rank, layer, elements / ranks, behind, memory)
        if ranks == 1:
            return uploaded
        yield from ()
        return rank.all_gather(BF16 * elements, layer if layer < self.workload.model.layers else -1, [uploaded])

    def source(self, layer: int) -> str:
        """The tier that a layer is copied from: of parameters, or of optimizer state where its fp32 ones serve."""
        if self.parameter_bytes:
            return self.placed.parameters
        return self.placed.optimizer[self.workload.subgroups_of_layers[layer][0]]

    def upload(
        self,
        rank: Rank,
        layer: int,
        elements: float,
        after: Sequence[Operation | None],
        memory: Sequence[MemoryChange],
    ) -> Operation:
        """Copy the rank's `elements` of a layer to the GPU in 16 bits; returns what its kernels wait for."""
        stream, nbytes = rank.stream("fetch"), BF16 * elements
        return rank.move(
            nbytes, self.source(layer), GPU, "fetch parameters", layer=layer, stream=stream, after=after,
            allocates=memory,
        )  # fmt: skip
