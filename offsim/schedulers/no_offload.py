"""ZeRO-3 with everything on the GPU."""

from __future__ import annotations

from offsim.programs.rank import Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket
from offsim.schedulers.base import GRADIENTS, OPTIMIZER_STATE, Scheduler, count, reduce_norm, update_resident


class NoOffload(Scheduler):
    """Optimizer state and gradients stay in GPU memory; nothing crosses the host link."""

    name = "no_offload"

    def allocate(self, rank: Rank) -> None:
        rank.gpu_memory.allocate(OPTIMIZER_STATE, 3 * FP32 * count(self.subgroups))
        rank.gpu_memory.allocate(GRADIENTS, FP32 * count(self.subgroups))

    def flush(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Process:
        elements = sum(share for _, share in bucket.shares)
        rank.elementwise(rank.reduce_stream, "d2d", (BF16 + 2 * FP32) * elements, "accumulate gradients")
        yield from ()

    def update(self, rank: Rank) -> Process:
        yield from reduce_norm(rank, len(self.subgroups))
        yield from update_resident(rank, self.subgroups)
