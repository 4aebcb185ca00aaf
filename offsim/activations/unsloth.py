"""Unsloth's offloaded gradient checkpointing (unsloth-zoo, commit ce232d6).

Of the smart variant, the first pass, in which the last layer leaves too, is not simulated. Unsloth takes two slots
where 512 MiB of GPU memory are free after it.
"""

from __future__ import annotations

from typing import Literal

from offsim.engine import Code, Operation
from offsim.programs.activations import ActivationRule, RuleOptions
from offsim.programs.options import option
from offsim.programs.rank import Rank

SMALLEST = 2 * 2**20
"""Inputs up to so many bytes stay."""


class UnslothOptions(RuleOptions):
    """Which of the two implementations, and its buffers on the GPU."""

    variant: Literal["smart", "basic"] = option("smart", "smart: copies beside compute; basic: on its stream")
    slots: Literal[1, 2] = option(
        2, "inputs on the GPU at once in backward: two come back under the previous layer, one after it"
    )


class Unsloth(ActivationRule):
    """Inputs of recomputed layers leave under their layer's kernels, whose successors wait for the copy."""

    name = "unsloth"
    Options = UnslothOptions

    def stays(self, layer: int) -> bool:
        if self.options.variant == "basic":
            return not self.recomputed(layer)
        return layer >= min(self.placed.recomputed, self.layers - 1) or self.workload.hidden_bytes <= SMALLEST

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        made, gpu = self.saved_by(layer, step, after), self.on_gpu(rank, nbytes)
        if self.stays(layer):
            return
        if self.options.variant == "basic":
            self.send(rank, layer, step, nbytes, [after], frees=gpu, stream=rank.compute_stream)
        else:
            rank.wait_event(rank.compute_stream, self.send(rank, layer, step, nbytes, [made]), frees=gpu)
        yield from ()

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        yield from ()
        if self.options.variant == "smart" and self.options.slots == 2:
            return self.bring_ahead(rank, layer, step)
        if self.stays(layer):
            return None
        if self.options.variant == "basic":
            return self.bring(rank, layer, nbytes, [], stream=rank.compute_stream)
        return self.bring(rank, layer, nbytes, [self.copies[layer, step], self.backwards.get(layer + 1)])
