"""Arctic Long Sequence Training (ArcticTraining, `activation_checkpoint_cpu_offload`).

The inputs of recomputed layers go to pageable memory and come back by copies on the compute stream that block the host.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.programs.activations import ActivationRule
from offsim.programs.rank import Rank


class Alst(ActivationRule):
    """Checkpoints leave and come back by blocking, pageable copies."""

    name = "alst"
    pinned = False

    def stays(self, layer: int) -> bool:
        return not self.recomputed(layer)

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        if not self.stays(layer):
            yield self.send(
                rank, layer, step, nbytes, [after], frees=self.on_gpu(rank, nbytes), stream=rank.compute_stream
            )

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        if self.stays(layer):
            return None
        copy = self.bring(rank, layer, nbytes, [], stream=rank.compute_stream)
        yield copy
        return copy
