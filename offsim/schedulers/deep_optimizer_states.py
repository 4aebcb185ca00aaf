"""Deep Optimizer States: sub-groups updated on CPU and GPU in turn (Middleware 2024, doi 10.1145/3652892.3700781)."""

from __future__ import annotations

from typing import Literal

from offsim.engine import Code, Operation, Thread
from offsim.inputs.fields import Count
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload
from offsim.schedulers.base import (
    ACCUMULATION,
    GRADIENTS,
    OPTIMIZER_STATE,
    OffloadOptions,
    OffloadSchedule,
    count,
    option,
)
from offsim.states.placement import Placed

SLOT = "GPU sub-group in flight (p, m, v)"
STAGED_GRADIENTS = "gradients of GPU sub-groups (bf16)"
STATE = ("momentum", "variance", "parameters")


class DeepOptimizerStatesOptions(OffloadOptions):
    """`cpu_ratio` bounds the sub-groups that take part; the rest is static on the GPU."""

    update_stride: Count = option(
        2, "every update_stride-th sub-group is updated on the GPU", ge=2, tries=(2, 3, 4, 5, 6, 7, 8), word="stride"
    )
    transfers: Literal["three_streams", "one_stream"] = option(
        "three_streams",
        "three_streams: momentum, variance and parameters move on streams of their own, bf16 parameters are made and "
        "uploaded by a background thread (released code); one_stream: all on one stream, uploads from the host thread, "
        "GPU updates awaited (early build)",
        column="dos_build",
        cells={"A": "one_stream", "B": "three_streams", "C": "three_streams"},
        word="build",
    )


class DeepOptimizerStates(OffloadSchedule):
    """Of each block of `update_stride` sub-groups the last is fetched to the GPU, updated there and flushed back."""

    name = "deep_optimizer_states"
    Options = DeepOptimizerStatesOptions
    lag = 1
    """The last GPU sub-group of an update is cast by the next one where their number is a multiple of the stride."""
    waits_for_parameters = False
    """The background thread's last uploads are not awaited: they can reach into the next forward (released code)."""
    starts_with_update = True
    special_build = True

    @classmethod
    def deepspeed_notes(cls, options: DeepOptimizerStatesOptions) -> list[str]:
        return [
            "needs the build of DeepSpeed of Deep Optimizer States (doi 10.1145/3652892.3700781), with one sub-group "
            f"in {options.update_stride} updated on the GPU (update stride {options.update_stride}); "
            "stock DeepSpeed runs these keys as zero3_offload with asynchronous gradients"
        ]

    @classmethod
    def spills(cls, options: DeepOptimizerStatesOptions) -> bool:
        return options.transfers == "three_streams"

    def __init__(self, options: DeepOptimizerStatesOptions, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.stride = options.update_stride
        self.three_streams = options.transfers == "three_streams"
        self.static = tuple(self.on(GPU))
        self.dynamic = tuple(self.off_gpu())
        self.fetched = tuple(s for s in self.dynamic if self.runs_on_gpu(s))
        self.copy_streams = tuple((tensor, f"copy {tensor}" if self.three_streams else "copy") for tensor in STATE)
        """(Tensor of the state, name of the stream that carries it)."""
        self.to_flush: Subgroup | None = None
        self.updated: Operation | None = None

    def unused(self) -> str:
        if self.fetched:
            return ""
        return (
            f"update_stride {self.stride} has no effect: none of {len(self.dynamic)} sub-groups off the GPU is fetched"
        )

    def runs_on_gpu(self, subgroup: Subgroup) -> bool:
        return (subgroup.index + 1) % self.stride == 0

    def triggers_transfers(self, subgroup: Subgroup) -> bool:
        return subgroup.index % self.stride == 0

    def place(self, rank: Rank) -> None:
        host, gpu = rank.host_memory, rank.gpu_memory
        for tier in dict.fromkeys(tier for tier in self.placed.optimizer if tier != GPU):
            on_cpu = count(self.on(tier))
            rank.tier(tier).allocate(OPTIMIZER_STATE, 3 * FP32 * on_cpu)
            rank.tier(tier).allocate("second copies of m and v", 2 * FP32 * on_cpu)
        host.allocate(GRADIENTS, FP32 * count(self.dynamic))
        host.allocate(ACCUMULATION, BF16 * count(self.subgroups))
        largest = max((s.elements for s in self.dynamic), default=0)
        host.allocate("staging buffers (bf16)", (self.stride - 1) * BF16 * largest)
        gpu.allocate(SLOT, 3 * FP32 * max((s.elements for s in self.fetched), default=0))
        gpu.allocate(OPTIMIZER_STATE, 3 * FP32 * count(self.static))
        gpu.allocate(GRADIENTS, FP32 * count(self.static))

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        if last:
            own = [(self.subgroups[i], share) for i, share in bucket.shares if self.placed.optimizer[i] != GPU]
            to_slot = sum(share for subgroup, share in own if self.runs_on_gpu(subgroup))
            rank.gpu_memory.allocate(STAGED_GRADIENTS, BF16 * to_slot)
            self.drain_gradients(rank, sum(share for _, share in own) - to_slot)
        yield from ()

    def update(self, rank: Rank) -> Code:
        yield from self.start_update(rank)
        block: list[Subgroup] = []  # CPU sub-groups whose bf16 parameters are not yet uploaded
        for subgroup in self.dynamic:
            if self.runs_on_gpu(subgroup):
                yield from self.update_on_gpu(rank, subgroup)
                continue
            if self.triggers_transfers(subgroup):
                self.flush_previous_and_fetch_next(rank, subgroup)
                yield rank.wait(rank.stream("bf16 upload"))
            yield rank.scale(subgroup.elements, subgroup.index)
            tier = self.placed.optimizer[subgroup.index]
            yield rank.cpu_adam(subgroup.elements, subgroup.index, tier, casts=not self.three_streams)
            if not self.three_streams:
                self.upload(rank, subgroup, rank.host)
                continue
            block.append(subgroup)
            if (subgroup.index + 2) % self.stride == 0 or subgroup is self.dynamic[-1]:
                rank.spawn("background thread", self.downcast_and_upload(rank, block))
                block = []
        yield from self.update_resident(rank, self.static)
        yield rank.wait(rank.stream("bf16 upload"))

    def flush_previous_and_fetch_next(self, rank: Rank, trigger: Subgroup) -> None:
        """A tensor's fetch waits for that tensor's flush only: both directions of the link are busy at once."""
        if self.to_flush is not None:
            previous = self.to_flush
            nbytes, stream = (FP32 + BF16) * previous.elements, rank.compute_stream
            cast = rank.elementwise(stream, "d2d", nbytes, "cast parameters", previous.index)
            self.written(rank, previous, cast, update=self.updated.iteration if self.updated else None)
            for tensor, name in self.copy_streams:
                nbytes, tier = FP32 * previous.elements, self.placed.optimizer[previous.index]
                stream, after = rank.stream(name), [self.updated]
                rank.move(nbytes, GPU, tier, f"flush {tensor}", previous.index, stream=stream, after=after)
            self.to_flush = None
        following = trigger.index + self.stride - 1
        if following < len(self.subgroups) and self.placed.optimizer[following] != GPU:
            for tensor, name in self.copy_streams:
                nbytes, tier = FP32 * self.subgroups[following].elements, self.placed.optimizer[following]
                rank.move(nbytes, tier, GPU, f"fetch {tensor}", following, stream=rank.stream(name))

    def update_on_gpu(self, rank: Rank, subgroup: Subgroup) -> Code:
        yield rank.wait(*(rank.stream(stream) for _, stream in self.copy_streams))
        if rank.iteration:  # the update before the first iteration has none
            rank.gpu_memory.free(STAGED_GRADIENTS, BF16 * subgroup.elements)
        self.updated = rank.gpu_adam(subgroup.elements, subgroup.index)
        self.to_flush = subgroup
        if not self.three_streams:
            yield self.updated

    def upload(self, rank: Rank, subgroup: Subgroup, thread: Thread) -> None:
        stream, nbytes = rank.stream("bf16 upload"), BF16 * subgroup.elements
        self.written(rank, subgroup, rank.h2d(stream, nbytes, "upload parameters", subgroup.index, thread=thread))

    def downcast_and_upload(self, rank: Rank, block: list[Subgroup]) -> Code:
        """The background thread; nobody waits for it, so its last uploads can reach into the next forward."""
        thread = rank.thread("background thread")
        for subgroup in block:
            yield rank.downcast(subgroup.elements, subgroup.index, thread)
            self.upload(rank, subgroup, thread)
