"""MLP-Offload: optimizer state over two storage paths, with a cache that lasts (SC 2025, doi 10.1145/3712285.3759864).

Steps after the fork of DeepSpeed (branch of 2024-10) and the logs of the released runs, which win where they differ.
"""

from __future__ import annotations

from typing import Any, Literal

from offsim.engine import Code, Server
from offsim.inputs.fields import Count, Flag
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import FP32, Bucket, Subgroup
from offsim.schedulers.base import option
from offsim.schedulers.swapping import SwapOptions, Swapping
from offsim.states.pool import LastKept

TENSORS = 3  # p, m and v: buffers of a sub-group


class MlpOffloadOptions(SwapOptions):
    """`split` is the paper's ratio of paths."""

    second_path: str = option("pfs", "tier of every split-th sub-group; the others are on nvme")
    split: Count = option(3, "every so many-th sub-group is on the second path", ge=2)
    alternating: Flag = option(True, "every other update takes the sub-groups in reverse order", tries=(True, False))
    lock: Literal["none", "job", "all"] = option("job", "paths that one rank at a time uses: of the job, or all")

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
    gathers_late = False  # its measured backward hides gathers and reduce-scatters
    deepspeed = None

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """Every split-th sub-group on the second path, but for those that stay on the GPU."""
        placed = enumerate(super().default_tiers(options, subgroups))
        return tuple(tier if tier == GPU or i % options.split else options.second_path for i, tier in placed)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        paths = dict.fromkeys(self.tier_of(s) for s in self.subgroups if self.stored(rank, s))
        self.submitted: set[int] = set()  # sub-groups that the present update has begun to read
        self.caches = {path: LastKept(self.buffers // len(paths) // TENSORS) for path in paths}
        for subgroup in reversed(self.subgroups):  # as an update before the first iteration would leave them
            if self.stored(rank, subgroup):
                self.caches[self.tier_of(subgroup)].use(subgroup.index)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        yield from ()

    def locks(self, rank: Rank, handle: str) -> tuple[Server, ...]:
        """The node's lock of reads, or of writes, on a path, if it is locked."""
        locked = self.options.lock in ("all", rank.profile.tiers[handle.split()[0]].scope)
        return (rank.platform.lock(handle),) if locked else ()

    def update(self, rank: Rank) -> Code:
        yield from self.start_update(rank)
        order = self.off_gpu()
        if self.options.alternating and rank.iteration % 2 == 0:
            order.reverse()
        cached = {s.index for s in order if s.index in self.caches[self.tier_of(s)]}
        for position, subgroup in enumerate(order):
            tier, cache = self.tier_of(subgroup), self.caches[self.tier_of(subgroup)]
            path = [s for s in order[position + 1 :] if self.tier_of(s) == tier]
            if subgroup.index not in cached:
                self.submit_read(rank, subgroup)
                yield rank.wait(rank.stream(f"{tier} read"))
                self.submit_read(rank, next((s for s in path if s.index not in cached), None))
            yield rank.upcast(subgroup.elements, subgroup.index)
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            yield from self.upload_and_cast(rank, subgroup)
            cache.use(subgroup.index)
            if len(path) >= cache.slots:  # the path's last ones stay in their buffers
                yield rank.wait(rank.stream(f"{tier} write"))
                self.write(rank, TENSORS * FP32 * subgroup.elements, subgroup, "write p, m, v")
        self.submitted.clear()
        yield rank.wait(*self.handles(rank, "write"))
        yield from self.update_resident(rank, self.on(GPU))

    def submit_read(self, rank: Rank, subgroup: Subgroup | None) -> None:
        """Unless it was submitted ahead."""
        if subgroup is not None and subgroup.index not in self.submitted:
            self.read(rank, TENSORS * FP32 * subgroup.elements, subgroup, "read p, m, v")
            self.submitted.add(subgroup.index)
