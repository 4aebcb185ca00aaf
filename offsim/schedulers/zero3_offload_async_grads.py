"""The baseline with asynchronous gradient flushes, as today's DeepSpeed behaves."""

from __future__ import annotations

from offsim.programs.rank import Process, Rank
from offsim.schedulers.base import drain_gradients
from offsim.schedulers.zero3_offload import Zero3Offload


class Zero3OffloadAsyncGrads(Zero3Offload):
    """Gradients are converted on the GPU and copied to pinned memory while backward goes on."""

    name = "zero3_offload_async_grads"

    def store_gradients(self, rank: Rank, elements: int) -> Process:
        drain_gradients(rank, elements)
        yield from ()
