"""What systems have in common whose layers live in host memory and visit the GPU around their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from offsim.engine import Code, MemoryChange, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch, TrainingSchedule
from offsim.programs.transformer import BF16, Subgroup


def parts_of(elements: float, most: int) -> list[float]:
    """Cut into parts of at most so many elements; the last may be smaller."""
    return [min(most, elements - start) for start in range(0, max(1, int(elements)), most)]


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

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return True

    def before_update(self, rank: Rank) -> Code:
        """No norm of all gradients: layers are updated as their gradients come."""
        yield from ()

    def update(self, rank: Rank) -> Code:
        """Updates began in backward and run on; the next forward waits layer by layer."""
        yield from ()

    def update_on_cpu(
        self, rank: Rank, group: Subgroup, arrived: Sequence[tuple[Operation, float]], first: bool, last: bool
    ) -> Code:
        """The optimizer's thread: each copy of so many 16-bit gradients, as it lands, is added up or applied."""
        thread, index = rank.thread("optimizer"), group.index
        for copy, elements in arrived:
            yield copy
            yield rank.upcast(elements, index, thread)
            if not first:
                yield rank.add(elements, index, thread)
            if last:
                yield rank.cpu_adam(elements, index, self.placed.optimizer[index], thread)

    def release(self, rank: Rank, layer: int, pass_: str, after: Operation) -> None:
        super().release(rank, layer, pass_, after)
        self.released = after

    def fetch(self, rank: Rank, wanted: Fetch) -> Code:
        """In backward, into the place of the layer that was released last."""
        if self.placed.parameters == GPU:
            return (yield from super().fetch(rank, wanted))
        ranks = self.workload.training.data_parallel
        behind = [*wanted.after, self.released] if wanted.pass_ == "backward" else wanted.after
        uploaded = self.upload(rank, wanted._replace(elements=wanted.elements / ranks, after=behind))
        if ranks == 1:
            return uploaded
        layer = wanted.layer if wanted.layer < self.workload.model.layers else -1
        return rank.all_gather(BF16 * wanted.elements, layer, [uploaded])

    def source(self, layer: int) -> str:
        """The tier that a layer is copied from: of parameters, or of optimizer state where its fp32 ones serve."""
        if self.parameter_bytes:
            return self.placed.parameters
        return self.placed.optimizer[self.workload.subgroups_of_layers[layer][0]]

    def upload(self, rank: Rank, part: Fetch) -> Operation:
        """Copy the rank's part of a layer to the GPU in 16 bits; returns what its kernels wait for."""
        return self.copy_up(rank, part, BF16)

    def copy_up(self, rank: Rank, part: Fetch, width: int, *more: MemoryChange) -> Operation:
        """Copy the rank's part of a layer to the GPU, in so many bytes a parameter; it takes `more` memory too."""
        return rank.move(
            width * part.elements,
            self.source(part.layer),
            GPU,
            "fetch parameters",
            layer=part.layer,
            stream=rank.stream("fetch"),
            after=part.after,
            allocates=[*part.memory, *more],
        )
