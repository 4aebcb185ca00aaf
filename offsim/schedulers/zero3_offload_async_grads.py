"""The baseline with asynchronous gradient flushes, as DeepSpeed behaves from 0.19.5 on."""

from __future__ import annotations

from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.schedulers.zero3_options import TwinFlowOptions


class Zero3OffloadAsyncGrads(Zero3Offload):
    """Gradients are converted on the GPU and copied to pinned memory while backward goes on."""

    name = "zero3_offload_async_grads"
    Options = TwinFlowOptions
