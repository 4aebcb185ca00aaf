"""The baseline with asynchronous gradient flushes, as DeepSpeed behaves from 0.19.5 on."""

from __future__ import annotations

from offsim.schedulers.base import OffloadOptions
from offsim.schedulers.zero3_offload import Zero3Offload


class Zero3OffloadAsyncGrads(Zero3Offload):
    """Gradients are converted on the GPU and copied to pinned memory while backward goes on."""

    name = "zero3_offload_async_grads"
    Options = OffloadOptions
