"""DeepSpeed ZeRO-3 with the optimizer on the CPU: the baseline of the Deep Optimizer States paper (section 3)."""

from __future__ import annotations

from offsim.programs.rank import Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Workload
from offsim.schedulers.base import (
    GRADIENTS,
    OPTIMIZER_STATE,
    OffloadOptions,
    Scheduler,
    accumulate_on_host,
    count,
    reduce_norm,
    update_resident,
)

ACCUMULATION = "gradient accumulation buffer (bf16)"


class Zero3Offload(Scheduler):
    """Blocking gradient flushes; a strictly serial update loop on the CPU. `cpu_ratio` < 1 is TwinFlow."""

    name = "zero3_offload"
    Options = OffloadOptions

    def __init__(self, options: OffloadOptions, workload: Workload) -> None:
        super().__init__(options, workload)
        on_cpu = int(options.cpu_ratio * len(self.subgroups))
        self.on_cpu = self.subgroups[:on_cpu]
        self.on_gpu = self.subgroups[on_cpu:]

    def allocate(self, rank: Rank) -> None:
        host, gpu = rank.host_memory, rank.gpu_memory
        host.allocate(OPTIMIZER_STATE, 3 * FP32 * count(self.on_cpu))
        host.allocate(GRADIENTS, FP32 * count(self.on_cpu))
        host.allocate(ACCUMULATION, BF16 * count(self.subgroups))
        gpu.allocate(OPTIMIZER_STATE, 3 * FP32 * count(self.on_gpu))
        gpu.allocate(GRADIENTS, FP32 * count(self.on_gpu))

    def flush(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Process:
        accumulate_on_host(rank, sum(share for _, share in bucket.shares), first)
        if last:
            elements = self.cpu_share(bucket)
            if elements:
                yield from self.store_gradients(rank, elements)

    def cpu_share(self, bucket: Bucket) -> int:
        """Parameters of a bucket whose optimizer state is on the CPU."""
        return sum(share for subgroup, share in bucket.shares if subgroup < len(self.on_cpu))

    def store_gradients(self, rank: Rank, elements: int) -> Process:
        """The host thread stands still until the gradients are in host memory and converted."""
        yield rank.pageable_d2h(rank.reduce_stream, BF16 * elements, "gradients")
        yield rank.upcast(elements, -1)

    def update(self, rank: Rank) -> Process:
        yield from reduce_norm(rank, len(self.subgroups))
        yield rank.launch("first sub-group", rank.profile.host.update_start_s)
        upload = rank.stream("upload")
        for subgroup in self.on_cpu:
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            yield rank.downcast(subgroup.elements, subgroup.index, fresh=True)
            yield rank.pageable_h2d(upload, BF16 * subgroup.elements, "upload parameters", subgroup.index)
        yield from update_resident(rank, self.on_gpu)
