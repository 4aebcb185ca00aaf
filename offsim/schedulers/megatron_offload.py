"""Megatron-LM's --optimizer-cpu-offload (d98e8a6, HybridDeviceOptimizer) with the distributed optimizer, as ZeRO-1.

Gradients stay on the GPU, in fp32, until the update. The first parameters are on the CPU, here by layer; its Adam is
PyTorch's, fused. The pageable state that the release starts with is not modelled.
"""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code, Operation
from offsim.inputs.fields import Flag
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import GRADIENTS, OffloadOptions, OffloadSchedule, count, option


class MegatronOffloadOptions(OffloadOptions):
    """`cpu_ratio` is --optimizer-offload-fraction."""

    overlap_d2h_h2d: Flag = option(
        False, "copies on streams of their own (--overlap-cpu-optimizer-d2h-h2d)", tries=(False, True)
    )


class MegatronOffload(OffloadSchedule):
    """All gradients are queued to the host; the GPU's part steps; then the CPU's, tensor by tensor, up in fp32."""

    name = "megatron_offload"
    Options = MegatronOffloadOptions
    by_layer = True
    stages = (1,)
    deepspeed: ClassVar[dict[str, Any] | None] = None
    gradients_with_state = False

    def place(self, rank: Rank) -> None:
        super(OffloadSchedule, self).place(rank)
        rank.host_memory.allocate(GRADIENTS, FP32 * count(self.off_gpu()))
        rank.gpu_memory.allocate("gradients of the whole model, other half (fp32)", BF16 * self.workload.parameters)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        nbytes = (BF16 + 2 * FP32) * bucket.elements
        rank.elementwise(rank.reduce_stream, "d2d", nbytes, "accumulate gradients")
        yield from ()

    def update(self, rank: Rank) -> Code:
        own = self.options.overlap_d2h_h2d
        down = rank.stream("gradients out") if own else rank.compute_stream
        up = rank.stream("upload") if own else rank.compute_stream
        arrived: dict[int, Operation] = {}
        for group in self.off_gpu():
            arrived[group.index] = rank.d2h(down, FP32 * group.elements, "fp32 gradients", group.index)
        for group in self.on(GPU):
            rank.gpu_adam(group.elements, group.index)
            nbytes = (FP32 + BF16) * group.elements
            self.written(
                rank, group, rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast parameters", group.index)
            )
        for group in self.off_gpu():
            yield arrived[group.index]
            yield rank.torch_adam(group.elements, group.index, self.placed.optimizer[group.index], fused=True)
            uploaded = rank.h2d(up, FP32 * group.elements, "upload parameters", group.index)
            self.cast(rank, group, uploaded)
        yield rank.wait(up, rank.compute_stream)
        yield from self.gather_updated(rank)

    def cast(self, rank: Rank, group: Subgroup, after: Operation | None) -> None:
        """fp32 parameters on the GPU into the 16-bit ones."""
        nbytes = (FP32 + BF16) * group.elements
        done = rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast parameters", group.index, [after])
        self.written(rank, group, done)
