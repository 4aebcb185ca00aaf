"""The baseline with asynchronous gradient flushes, as today's DeepSpeed behaves."""

from __future__ import annotations

from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.schedulers.base import OffloadOptions
from offsim.schedulers.zero3_offload import Zero3Offload


class Zero3OffloadAsyncGrads(Zero3Offload):
    """Gradients are converted on the GPU and copied to pinned memory while backward goes on."""

    name = "zero3_offload_async_grads"
    Options = OffloadOptions  # type: ignore[assignment]

    def store_gradients(self, rank: Rank, elements: int) -> Code:
        self.drain_gradients(rank, elements)
        yield from ()
