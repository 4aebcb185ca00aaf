"""PyTorch FSDP with CPU offload: FSDP2's CPUOffloadPolicy(pin_memory=True), and FSDP1's CPUOffload.

After torch.distributed.fsdp of 2025 (pytorch 010ae4a), mixed precision with fp32 parameters and bf16 compute, one
group for each block. The embedding and the head, which are the root's group, are fetched once an iteration. There is
no clipping. FSDP's other path, for one GPU, and copies into and out of the gather's buffers are not modelled.
"""

from __future__ import annotations

from typing import Literal

from offsim.engine import Code, Operation
from offsim.inputs.fields import Flag
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Bucket
from offsim.schedulers.base import ScheduleOptions, count, option
from offsim.schedulers.layers_in_host import LayersInHost


class FsdpOffloadOptions(ScheduleOptions):
    """The release, and what users choose in it."""

    version: Literal["fsdp2", "fsdp1"] = option(
        "fsdp2",
        "fsdp2: later micro-steps copy gradients to pageable memory, blocking, and add them on the CPU; "
        "fsdp1: gradients are added up on the GPU, and each micro-step copies the sum",
        fsdp="version",
        fsdp_values={1: "fsdp1", 2: "fsdp2"},
    )
    reshard_after_forward: Flag = option(
        True,
        "free layers after forward and fetch them again; if not, all stay until backward",
        tries=(True, False),
        fsdp="strategy",
        fsdp_values={"FULL_SHARD": True, "SHARD_GRAD_OP": False},
    )
    fused: Flag = option(
        False,
        "torch.optim with fused=True; if not, its loop over tensors",
        tries=(False, True),
        fsdp="optim",
        fsdp_values={"adamw_torch": False, "adamw_torch_fused": True},
    )


class FsdpOffload(LayersInHost):
    """fp32 shards are uploaded and cast one group ahead; gradients come back in fp32; then a serial update."""

    name = "fsdp_offload"
    Options = FsdpOffloadOptions
    parameter_bytes = 0
    keeps_last_layers = False
    layers_ahead = 2  # the one that computes and the next one

    @classmethod
    def updates_early(cls, options: FsdpOffloadOptions) -> bool:
        return False

    def place(self, rank: Rank) -> None:
        super().place(rank)
        if not self.options.reshard_after_forward:
            self.keeps_last_layers = True
            self.layers_ahead = self.workload.model.layers
        if self.options.version == "fsdp1":
            rank.gpu_memory.allocate("gradient shards (fp32)", FP32 * count(self.subgroups))
        elif self.workload.training.micro_steps > 1:
            largest = max(subgroup.elements for subgroup in self.subgroups)
            rank.host_memory.allocate("gradients to add (fp32, pageable)", FP32 * largest)

    def upload(self, rank: Rank, part: Fetch) -> Operation:
        """4 B a parameter, cast on the GPU."""
        shard = (rank.gpu_memory, "fetched shard (fp32)", FP32 * part.elements)
        self.copy_up(rank, part, FP32, shard)
        cast = rank.elementwise(rank.stream("fetch"), "conversion", (FP32 + BF16) * part.elements, "fp32 to bf16")
        rank.free_after(cast, [shard])
        return cast

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Behind its reduce-scatter, on the same stream: the next group's waits for the copy."""
        elements, stream = self.elements(bucket), rank.reduce_stream
        rank.elementwise(stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
        if self.options.version == "fsdp1" and not first:
            rank.elementwise(stream, "d2d", 3 * FP32 * elements, "add gradients")
        if self.options.version == "fsdp1" or first:
            rank.d2h(stream, FP32 * elements, "fp32 gradients")
        else:
            yield rank.d2h(stream, FP32 * elements, "fp32 gradients", pinned=False)
            yield rank.add(elements, bucket.shares[0][0])

    def update(self, rank: Rank) -> Code:
        for group in self.subgroups:
            updated = rank.torch_adam(
                group.elements, group.index, self.placed.optimizer[group.index], self.options.fused
            )
            self.written(rank, group, updated)
            yield updated
