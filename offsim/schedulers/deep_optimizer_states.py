"""Deep Optimizer States: sub-groups updated on CPU and GPU in turn (Middleware 2024, doi 10.1145/3652892.3700781)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from offsim.engine import Operation
from offsim.inputs.fields import Count
from offsim.programs.rank import HostThread, Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload
from offsim.schedulers.base import (
    GRADIENTS,
    OPTIMIZER_STATE,
    OffloadOptions,
    Scheduler,
    accumulate_on_host,
    count,
    drain_gradients,
    reduce_norm,
    update_resident,
)
from offsim.schedulers.zero3_offload import ACCUMULATION

SLOT = "GPU sub-group in flight (p, m, v)"
STAGED_GRADIENTS = "gradients of GPU sub-groups (bf16)"
STATE = ("momentum", "variance", "parameters")


class DeepOptimizerStatesOptions(OffloadOptions):
    """`cpu_ratio` bounds the sub-groups that take part; the rest is static on the GPU."""

    update_stride: Count = Field(
        default=2,
        ge=2,
        description="every update_stride-th sub-group is updated on the GPU",
        json_schema_extra={"try": [2, 3, 4, 5, 6, 7, 8]},
    )
    transfers: Literal["three_streams", "one_stream"] = Field(
        default="three_streams",
        description="three_streams: momentum, variance and parameters move on streams of their own, bf16 parameters "
        "are made and uploaded by a background thread (released code); one_stream: all on one stream, uploads "
        "from the host thread, GPU updates awaited (early build)",
    )


class DeepOptimizerStates(Scheduler):
    """Of each block of `update_stride` sub-groups the last is fetched to the GPU, updated there and flushed back."""

    name = "deep_optimizer_states"
    Options = DeepOptimizerStatesOptions
    carries_over = True

    def __init__(self, options: DeepOptimizerStatesOptions, workload: Workload) -> None:
        super().__init__(options, workload)
        self.stride = options.update_stride
        self.three_streams = options.transfers == "three_streams"
        dynamic = int(options.cpu_ratio * len(self.subgroups))
        self.dynamic = self.subgroups[:dynamic]
        self.static = self.subgroups[dynamic:]
        self.fetched = [s for s in self.dynamic if self.runs_on_gpu(s)]
        self.to_flush: Subgroup | None = None
        self.updated: Operation | None = None

    def runs_on_gpu(self, subgroup: Subgroup) -> bool:
        return (subgroup.index + 1) % self.stride == 0

    def triggers_transfers(self, subgroup: Subgroup) -> bool:
        return subgroup.index % self.stride == 0

    def allocate(self, rank: Rank) -> None:
        host, gpu = rank.host_memory, rank.gpu_memory
        on_cpu = count(self.dynamic)
        host.allocate(OPTIMIZER_STATE, 3 * FP32 * on_cpu)
        host.allocate("second copies of m and v", 2 * FP32 * on_cpu)
        host.allocate(GRADIENTS, FP32 * on_cpu)
        host.allocate(ACCUMULATION, BF16 * count(self.subgroups))
        largest = max((s.elements for s in self.dynamic), default=0)
        host.allocate("staging buffers (bf16)", (self.stride - 1) * BF16 * largest)
        gpu.allocate(SLOT, 3 * FP32 * max((s.elements for s in self.fetched), default=0))
        gpu.allocate(OPTIMIZER_STATE, 3 * FP32 * count(self.static))
        gpu.allocate(GRADIENTS, FP32 * count(self.static))

    def flush(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Process:
        accumulate_on_host(rank, sum(share for _, share in bucket.shares), first)
        if last:
            to_cpu = to_slot = 0
            for index, share in bucket.shares:
                if index >= len(self.dynamic):
                    continue
                if self.runs_on_gpu(self.subgroups[index]):
                    to_slot += share
                else:
                    to_cpu += share
            rank.gpu_memory.allocate(STAGED_GRADIENTS, BF16 * to_slot)
            drain_gradients(rank, to_cpu)
        yield from ()

    def update(self, rank: Rank) -> Process:
        yield from reduce_norm(rank, len(self.subgroups))
        yield rank.launch("first sub-group", rank.profile.host.update_start_s)
        block: list[Subgroup] = []  # CPU sub-groups whose bf16 parameters are not yet uploaded
        for subgroup in self.dynamic:
            if self.runs_on_gpu(subgroup):
                yield from self.update_on_gpu(rank, subgroup)
                continue
            if self.triggers_transfers(subgroup):
                self.flush_previous_and_fetch_next(rank, subgroup)
                yield rank.synchronize(rank.stream("bf16 upload"))
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            if not self.three_streams:
                self.upload(rank, subgroup)
                continue
            block.append(subgroup)
            if (subgroup.index + 2) % self.stride == 0 or subgroup is self.dynamic[-1]:
                rank.start(self.downcast_and_upload(rank, block), rank.thread("background thread"))
                block = []
        yield from update_resident(rank, self.static)
        yield rank.synchronize(rank.stream("bf16 upload"))

    def copy_streams(self) -> list[tuple[str, str]]:
        """(tensor of the state, name of the stream that carries it)."""
        return [(tensor, f"copy {tensor}" if self.three_streams else "copy") for tensor in STATE]

    def flush_previous_and_fetch_next(self, rank: Rank, trigger: Subgroup) -> None:
        """A tensor's fetch waits for that tensor's flush only: both directions of the link are busy at once."""
        if self.to_flush is not None:
            previous = self.to_flush
            rank.elementwise(
                rank.compute_stream, "d2d", (FP32 + BF16) * previous.elements, "cast parameters", previous.index
            )
            for tensor, stream in self.copy_streams():
                rank.d2h(
                    rank.stream(stream), FP32 * previous.elements, f"flush {tensor}", previous.index, [self.updated]
                )
            self.to_flush = None
        following = trigger.index + self.stride - 1
        if following < len(self.dynamic):
            for tensor, stream in self.copy_streams():
                elements = self.dynamic[following].elements
                rank.h2d(rank.stream(stream), FP32 * elements, f"fetch {tensor}", following)

    def update_on_gpu(self, rank: Rank, subgroup: Subgroup) -> Process:
        yield rank.synchronize(*(rank.stream(stream) for _, stream in self.copy_streams()))
        if rank.gpu_memory.occupants.get(STAGED_GRADIENTS):
            rank.gpu_memory.free(STAGED_GRADIENTS, BF16 * subgroup.elements)
        self.updated = rank.gpu_adam(subgroup.elements, subgroup.index)
        self.to_flush = subgroup
        if not self.three_streams:
            yield rank.synchronize(self.updated)

    def upload(self, rank: Rank, subgroup: Subgroup, thread: HostThread | None = None) -> None:
        stream, nbytes = rank.stream("bf16 upload"), BF16 * subgroup.elements
        rank.h2d(stream, nbytes, "upload parameters", subgroup.index, thread=thread)

    def downcast_and_upload(self, rank: Rank, block: list[Subgroup]) -> Process:
        """The background thread; nobody waits for it, so its last uploads can reach into the next forward."""
        thread = rank.thread("background thread")
        for subgroup in block:
            yield rank.downcast(subgroup.elements, subgroup.index, thread)
            self.upload(rank, subgroup, thread)
