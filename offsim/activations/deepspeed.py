"""DeepSpeed's `cpu_checkpointing` after 0.19.5 (runtime/activation_checkpointing); until then it was as `alst`.

The release reuses 64 pinned buffers; here each input takes its own bytes, because forward never waits for a buffer.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.programs.activations import ActivationRule
from offsim.programs.rank import Rank


class DeepSpeed(ActivationRule):
    """Inputs of recomputed layers leave beside compute and come back at use; the newest one stays."""

    name = "deepspeed"

    def stays(self, layer: int) -> bool:
        return layer >= self.placed.recomputed - 1

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        """The input goes out under the layer's own kernels, which need it to their end."""
        made = self.saved_by(layer, step, after)
        if not self.stays(layer):
            copy = self.send(rank, layer, step, nbytes, [made])
            rank.free_after([copy, after], self.on_gpu(rank, nbytes))
        yield from ()

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """As soon as the host gets there: a host that runs ahead of the GPU hides the copy."""
        yield from ()
        return None if self.stays(layer) else self.bring(rank, layer, nbytes, [self.copies[layer, step]])
