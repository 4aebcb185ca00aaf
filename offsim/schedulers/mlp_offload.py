"""MLP-Offload: optimizer state over two storage paths, with a cache that lasts (SC 2025, doi 10.1145/3712285.3759864).

Steps after the fork of DeepSpeed (branch of 2024-10) and the logs of the released runs, which win where they differ.
"""

from __future__ import annotations

from typing import Any, Literal

from offsim.engine import Code, Server
from offsim.inputs.fields import Count, Flag
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import option
from offsim.schedulers.swapping import SwapOptions, Swapping
from offsim.states.pool import LastKept

TENSORS = 3  # p, m and v: buffers of a sub-group


class MlpOffloadOptions(SwapOptions):
    """`split` is the paper's ratio of paths."""

    second_path: str = option("pfs", "tier of every split-th sub-group; the others are on nvme")
    split: Count = option(3, "every so many-th sub-group is on the second path", ge=2)
    alternating: Flag = option(True, "every other update takes the sub-groups in reverse order", tries=(True, False))
    lock: Literal["none", "job", "all"] = option(
        "job", "paths that one rank of a node uses at a time: of the job, or all"
    )

    @property
    def least_buffers(self) -> int:
        """On each of two paths a sub-group that is read, one that is updated and one that is written."""
        return 2 * 3 * TENSORS


class MlpOffload(Swapping):
    """Gradients wait in host memory in bf16; reads and writes of both paths overlap; the last used stay in buffers."""

    name = "mlp_offload"
    Options = MlpOffloadOptions
    period = 2
    optimizer_kinds = (GPU, "storage")
    parameter_kinds = (GPU,)
    gradients_with_state = False
    deepspeed = None

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """Every split-th sub-group on the second path, but for those that stay on the GPU."""
        placed = enumerate(super().default_tiers(options, subgroups))
        return tuple(tier if tier == GPU or i % options.split else options.second_path for i, tier in placed)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        paths = dict.fromkeys(self.tier_of(s) for s in self.subgroups if self.stored(rank, s))
        self.ahead: set[int] = set()  # sub-groups whose reads have been submitted
        self.cached: set[int] = set()  # sub-groups that the present update finds in buffers
        self.caches = {path: LastKept(self.buffers // len(paths) // TENSORS) for path in paths}
        for subgroup in reversed(self.subgroups):  # as an update before the first iteration would leave them
            if self.stored(rank, subgroup):
                self.caches[self.tier_of(subgroup)].use(subgroup.index)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        yield from ()

    def locks(self, rank: Rank, subgroup: Subgroup, kind: str) -> tuple[Server, ...]:
        """The node's lock of reads, or of writes, on the sub-group's path, if it is locked."""
        tier = self.tier_of(subgroup)
        locked = self.options.lock in ("all", rank.profile.tiers[tier].scope)
        return (rank.platform.lock(f"{tier} {kind}"),) if locked else ()

    def update(self, rank: Rank) -> Code:
        yield from self.start_update(rank)
        order = self.off_gpu()
        if self.options.alternating and rank.iteration % 2 == 0:
            order.reverse()
        self.cached.update(s.index for s in order if s.index in self.caches[self.tier_of(s)])
        for position, subgroup in enumerate(order):
            path = [s for s in order[position + 1 :] if self.tier_of(s) == self.tier_of(subgroup)]
            yield from self.fetch_state(rank, subgroup, path)
            yield rank.upcast(subgroup.elements, subgroup.index)
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            upload = rank.h2d(rank.stream("upload"), FP32 * subgroup.elements, "upload parameters", subgroup.index)
            nbytes = (FP32 + BF16) * subgroup.elements
            cast = rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast parameters", subgroup.index, [upload])
            self.written(rank, subgroup, cast)
            yield upload
            cache = self.caches[self.tier_of(subgroup)]
            cache.use(subgroup.index)
            if len(path) >= cache.slots:  # the path's last ones stay in their buffers
                yield rank.wait(rank.stream(f"{self.tier_of(subgroup)} write"))
                locks = self.locks(rank, subgroup, "write")
                self.write(rank, TENSORS * FP32 * subgroup.elements, subgroup, "write p, m, v", holds=locks)
        self.cached.clear()
        yield rank.wait(*self.handles(rank, "write"))
        yield from self.update_resident(rank, self.on(GPU))

    def fetch_state(self, rank: Rank, subgroup: Subgroup, path: list[Subgroup]) -> Code:
        """Wait for the sub-group's read, and read the next one of its path that is not cached."""
        if subgroup.index in self.cached:
            return
        following = next((s for s in path if s.index not in self.cached), None)
        for read in (subgroup, following):
            if read is not None and read.index not in self.ahead:
                locks = self.locks(rank, read, "read")
                self.read(rank, TENSORS * FP32 * read.elements, read, "read p, m, v", holds=locks)
                self.ahead.add(read.index)
            if read is subgroup:
                yield rank.wait(rank.stream(f"{self.tier_of(subgroup)} read"))
                self.ahead.discard(subgroup.index)
