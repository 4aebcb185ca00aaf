"""Updates block by block: the CPU updates each as soon as its gradients have arrived, the next forward waits for it.

Without a barrier between iterations there is no global norm, and so no clipping by it.
"""

from __future__ import annotations

from typing import Any

from offsim.engine import Code, Operation, Server, Stream, Thread
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, Bucket, Subgroup
from offsim.schedulers.base import TrainingSchedule, count

GRADIENTS = "gradients (bf16)"


class BlockUpdates(TrainingSchedule):
    """Gradients leave in 16 bits; copies of gradients, and updates, go in the order of `turn`."""

    by_layer = True
    gradients_with_state = False
    optimizer_kinds = (GPU, "memory")

    def turn(self, block: Subgroup) -> int:
        """Of copies and updates that wait, the lowest is next; where all are equal, the first."""
        return 0

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.worker = Server("optimizer")
        for tier in dict.fromkeys(self.placed.optimizer):
            rank.tier(tier).allocate(GRADIENTS, BF16 * count(self.on(tier)))

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """To host memory, where further micro-steps are added up and the last one's start the update."""
        yield from ()
        ((index, elements),) = bucket.shares
        block, nbytes = self.subgroups[index], BF16 * elements
        if self.placed.optimizer[index] == GPU:
            if not first:
                rank.elementwise(rank.reduce_stream, "d2d", 3 * nbytes, "add gradients", index)
            return
        leaving = ((rank.gpu_memory, "gradients on their way", nbytes),)
        rank.wait_event(rank.reduce_stream, None, takes=leaving)
        # Streams and threads of its own: what is ready first may be served last.
        out, worker, turn = Stream("gradients out", rank.number), Thread("optimizer", rank.number), self.turn(block)
        after = [rank.reduce_stream.tail]
        arrived = rank.move(
            nbytes, GPU, HOST, "gradients", index, stream=out, after=after, frees=leaving, priority=turn
        )
        rank.take_turns(worker, self.worker, turn)
        done = rank.engine.spawn(worker, self.update_block(rank, block, arrived, last, worker), rank.host)
        if last:
            self.written(rank, block, done)

    def update_block(self, rank: Rank, block: Subgroup, arrived: Operation, last: bool, worker: Thread) -> Code:
        """Add gradients up in fp32; the last time update, and upload what is read on the GPU."""
        yield arrived
        yield rank.upcast(block.elements, block.index, worker)
        if last:
            yield rank.cpu_adam(block.elements, block.index, self.placed.optimizer[block.index], worker)
            yield rank.downcast(block.elements, block.index, worker)
            if self.home_of(block) == GPU:
                stream = Stream("parameters in", rank.number)
                yield rank.h2d(stream, BF16 * block.elements, "upload parameters", block.index, thread=worker)

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return True

    def before_update(self, rank: Rank) -> Code:
        """No global norm: updates have begun in backward."""
        yield from ()

    def update(self, rank: Rank) -> Code:
        """The GPU's blocks; updates of the others run on."""
        yield from self.update_resident(rank, self.on(GPU))
