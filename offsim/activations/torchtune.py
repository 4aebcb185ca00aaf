"""torchtune's `OffloadActivations` with streams (training/_activation_offloading.py, commit bd2a0fc).

A layer's saved tensors move in one copy after the operation that makes the last of them; a node of autograd is a layer.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.programs.activations import KEPT, ActivationRule, RuleOptions
from offsim.programs.options import option
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16


class TorchtuneOptions(RuleOptions):
    """Arguments of the context manager."""

    max_fwd_stash_size: Count = option(5, "tensors on their way out before compute waits for the oldest")


class Torchtune(ActivationRule):
    """All saved tensors leave; compute waits for the oldest on its way; the newest layer's are used where they are."""

    name = "torchtune"
    Options = TorchtuneOptions
    saved = 0  # tensors in this pass
    stash: dict[tuple[int, int], tuple[int, Operation, float]]  # what is on the GPU still: last tensor, copy, bytes
    newest = (-1, -1)  # layer and micro-step that were saved last

    def stays(self, layer: int) -> bool:
        return False

    def saved_twice(self, layer: int) -> list[float]:
        """Elements of tensors that are saved again: the inputs of query, key, value and up projections; the context."""
        if self.recomputed(layer):
            return []
        _, norm, _, _, _, context, *_ = self.workload.layer_tensors
        return [norm, norm, context] + ([norm] if self.workload.model.swiglu else [])

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        yield from ()
        twice = self.saved_twice(layer)
        if not self.saved:
            self.stash = {}
        self.saved += 1 if self.recomputed(layer) else len(self.workload.layer_tensors) + len(twice)
        copy = self.send(rank, layer, step, nbytes + BF16 * sum(twice), [self.saved_by(layer, step, after)])
        self.stash[layer, step] = self.saved, copy, nbytes
        self.newest = layer, step
        if layer < self.layers - 1:  # when the next tensor is saved
            self.let_go(rank, self.saved + 1 - self.options.max_fwd_stash_size)

    def let_go(self, rank: Rank, last: int) -> None:
        """Compute waits for the copies of tensors up to the `last`, whose memory is free then."""
        for key, (tensor, copy, nbytes) in list(self.stash.items()):
            if tensor <= last:
                rank.wait_event(rank.compute_stream, copy, frees=self.on_gpu(rank, nbytes))
                del self.stash[key]

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """On demand, while the kernels of the layer before run."""
        yield from ()
        if (layer, step) == self.newest:
            return None
        nbytes += BF16 * sum(self.saved_twice(layer))
        return self.bring(rank, layer, nbytes, [self.copies[layer, step], self.backwards.get(layer + 2)])

    def ran(self, rank: Rank, layer: int, step: int, after: Operation) -> None:
        """After the first node, compute waits for all that is on its way."""
        super().ran(rank, layer, step, after)
        twice = BF16 * sum(self.saved_twice(layer))
        if (layer, step) == self.newest:
            _, copy, nbytes = self.stash.pop(self.newest)
            rank.free_after([copy, after], self.elsewhere(rank, nbytes + twice))
            self.let_go(rank, self.saved)
            self.saved = 0
        elif twice:
            rank.free_after(after, ((rank.gpu_memory, KEPT, twice),))
