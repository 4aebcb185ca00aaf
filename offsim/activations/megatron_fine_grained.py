"""Megatron-LM's fine-grained activation offloading (commit d98e8a6).

All modules of a layer are named, and move together. The first iteration, in which the last group leaves too, is not
simulated.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count, Number
from offsim.programs.activations import ActivationRule, RuleOptions
from offsim.programs.options import option
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16


class MegatronFineGrainedOptions(RuleOptions):
    """Megatron's flags."""

    fraction: Number = option(1.0, "share of layers that move, from the first", ge=0, le=1)
    min_tensor_size: Count = option(2**20, "elements; smaller tensors stay")


class MegatronFineGrained(ActivationRule):
    """Large tensors leave at the end of their module; each module's backward starts the reload of the next older group.

    As many groups stay as there are modules in a layer, so that reloads run one layer ahead.
    """

    name = "megatron_fine_grained"
    Options = MegatronFineGrainedOptions
    recomputes = False

    @property
    def large(self) -> float:
        """Bytes of a layer's tensors that move."""
        return BF16 * sum(n for n in self.workload.layer_tensors if n >= self.options.min_tensor_size)

    def stays(self, layer: int) -> bool:
        return super().stays(layer) or layer >= int(self.options.fraction * self.layers) or not self.large

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        yield from super().keep(rank, layer, step, self.large, after)

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        yield from ()
        return self.bring_ahead(rank, layer, step)
