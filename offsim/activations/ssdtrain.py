"""SSDTrain (arXiv 2408.10013; FlashTrain, commit 668f553): activations from the GPU straight to SSDs.

Which layers stay is decided from the first iteration here, all of whose writes are awaited; from the second micro-batch
there.
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.programs.activations import ActivationRule
from offsim.programs.rank import Rank


class SsdTrain(ActivationRule):
    """Writes follow forward, reads run one layer ahead of backward; what is still being written is used in place."""

    name = "ssdtrain"
    kinds = ("storage",)
    direct = True
    moving: int | None = None  # layers that leave, from the first; None until they are known

    def stays(self, layer: int) -> bool:
        return self.moving is not None and layer >= self.moving

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        if self.moving is None and rank.iteration > 1:
            yield rank.wait(rank.stream("activations out"))
            self.moving = self.affordable()
        self.forwards[layer, step] = after
        yield from super().keep(rank, layer, step, nbytes, after)

    def affordable(self) -> int:
        """Layers before the first one whose writes, and those before, would need more than the measured write rate.

        A layer's activations have to be gone until backward, of twice forward's time, gets there.
        """
        writes = self.copies.values()
        seconds, total = sum(write.ended_at - write.started_at for write in writes), sum(w.bytes for w in writes)
        times = [self.forwards[layer, 0].ended_at - self.forwards[layer, 0].started_at for layer in range(self.layers)]
        before = passed = 0.0
        for layer in range(self.layers):
            nbytes = self.copies[layer, 0].bytes
            if (before + 2 * nbytes) * seconds > total * (3 * sum(times) - 2 * passed):
                return layer
            before += nbytes
            passed += times[layer]
        return self.layers

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        yield from ()
        return self.bring_ahead(rank, layer, step)

    def prefetch(self, rank: Rank, layer: int, step: int) -> Operation | None:
        write = self.copies[layer, step]
        if write.done:
            return super().prefetch(rank, layer, step)
        write.frees = self.elsewhere(rank, write.bytes)  # the GPU's copy is used, which backward gives back
        return None
