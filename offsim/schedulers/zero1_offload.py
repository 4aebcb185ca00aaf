"""ZeRO-1 with the optimizer on the CPU, as DeepSpeed releases it (runtime/zero/stage_1_and_2.py, to 0.19.6).

The loop is that of ZeRO-2, but for accumulation: micro-steps add up on the GPU, which holds the
gradients of the whole model.
"""

from __future__ import annotations

from offsim.schedulers.zero2_offload import Zero2Offload


class Zero1Offload(Zero2Offload):
    """Gradients to host memory at the accumulation boundary, one CPU Adam, then an all-gather of the model."""

    name = "zero1_offload"
    stages = (1,)
