"""Megatron-LM's `--cpu-offloading` (commit d98e8a6): layer by layer, without recomputation or pipeline parallelism.

A layer's copies run after its kernels in forward, and one layer ahead in backward.
"""

from __future__ import annotations

from offsim.engine import Code
from offsim.inputs.fields import Count
from offsim.programs.activations import ActivationRule, RuleOptions
from offsim.programs.options import option
from offsim.programs.rank import Rank


class MegatronOptions(RuleOptions):
    """Megatron's `--cpu-offloading-num-layers`."""

    num_layers: Count | None = option(None, "layers that move, from the first; all but the last where none is given")


class Megatron(ActivationRule):
    """What the first layers keep leaves after their forward and comes back one layer ahead."""

    name = "megatron"
    Options = MegatronOptions
    recomputes = False

    def stays(self, layer: int) -> bool:
        return super().stays(layer) or layer >= (self.options.num_layers or self.layers)

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        yield from ()
        return self.bring_ahead(rank, layer, step)
