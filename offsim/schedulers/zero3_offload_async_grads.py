"""The baseline with asynchronous gradient flushes, as today's DeepSpeed behaves."""

from __future__ import annotations

from typing import Any

from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.schedulers.base import OffloadOptions, offload_optimizer
from offsim.schedulers.zero3_offload import Zero3Offload


class Zero3OffloadAsyncGrads(Zero3Offload):
    """Gradients are converted on the GPU and copied to pinned memory while backward goes on."""

    name = "zero3_offload_async_grads"
    Options = OffloadOptions

    @classmethod
    def deepspeed_keys(cls, options: Any) -> dict[str, Any] | None:
        return offload_optimizer(device="cpu", pin_memory=True, ratio=options.cpu_ratio)

    @classmethod
    def deepspeed_notes(cls, options: Any) -> list[str]:
        return ["needs a build that copies gradients without blocking the host, from 0.19.5"]

    def store_gradients(self, rank: Rank, elements: int) -> Code:
        self.drain_gradients(rank, elements)
        yield from ()
