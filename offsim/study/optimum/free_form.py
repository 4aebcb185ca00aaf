"""A schedule that a plan spells out: the side and the turn of each sub-group's update. No system has it.

It waits for nothing but what it needs. Gradients leave the GPU beside backward; after the norm, the CPU and the GPU
update their sub-groups side by side, each in its own order; copies overlap, in buffers for two sub-groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload
from offsim.schedulers.base import ACCUMULATION, GRADIENTS, OPTIMIZER_STATE, OffloadSchedule, count
from offsim.states.placement import Placed

Side = Literal["gpu", "cpu", "fetch"]
SIDES: tuple[Side, ...] = ("gpu", "cpu", "fetch")
"""On the GPU, which keeps the state; on the CPU; on the GPU, with the state fetched from host memory and flushed."""
SLOTS = 2
"""Fetched sub-groups on the GPU at once: one comes or is updated while the one before leaves."""
IN_FLIGHT = "sub-groups in flight (p, m, v)"
STAGED = "gradients of fetched sub-groups (bf16)"


@dataclass(frozen=True)
class Plan:
    """The side of each sub-group, and the order in which updates start: sides take theirs in this order."""

    sides: tuple[Side, ...]
    order: tuple[int, ...]

    def on(self, side: Side) -> tuple[int, ...]:
        """The sub-groups of a side in the order of their updates."""
        return tuple(index for index in self.order if self.sides[index] == side)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tier of each sub-group's optimizer state."""
        return tuple(GPU if side == "gpu" else HOST for side in self.sides)


class FreeForm(OffloadSchedule):
    """Does what its plan says; parameters are on the GPU."""

    name = "free_form"
    stages = (0, 1, 2, 3)

    def __init__(self, plan: Plan, workload: Workload, placed: Placed) -> None:
        super().__init__(plan, workload, placed)
        self.resident, self.on_cpu, self.fetched = (
            [self.subgroups[index] for index in plan.on(side)] for side in SIDES
        )
        self.flushed: dict[int, Operation] = {}
        """The last flush of each sub-group that is fetched."""

    def place(self, rank: Rank) -> None:
        """State where it is updated, but for fetched sub-groups: theirs is in host memory, with buffers on the GPU."""
        off_gpu = count(self.on_cpu) + count(self.fetched)
        rank.host_memory.allocate(OPTIMIZER_STATE, self.state_bytes * off_gpu)
        rank.host_memory.allocate(GRADIENTS, FP32 * count(self.on_cpu))
        rank.host_memory.allocate("upload buffer (bf16)", BF16 * count(self.on_cpu))
        rank.gpu_memory.allocate(OPTIMIZER_STATE, self.state_bytes * count(self.resident))
        rank.gpu_memory.allocate(GRADIENTS, FP32 * count(self.resident))
        largest = sorted((s.elements for s in self.fetched), reverse=True)[:SLOTS]
        rank.gpu_memory.allocate(IN_FLIGHT, self.state_bytes * sum(largest))
        if self.workload.training.micro_steps > 1:
            rank.host_memory.allocate(ACCUMULATION, BF16 * off_gpu)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Copy those of the CPU; those of the GPU stay, in fp32 where the state is resident, else as reduced."""
        if not (first and last):
            self.accumulate_on_host(rank, self.off_gpu_elements(bucket), first)
        if last:
            fetched = {subgroup.index for subgroup in self.fetched}
            staged = sum(share for index, share in bucket.shares if index in fetched)
            rank.gpu_memory.allocate(STAGED, BF16 * staged)
            self.drain_gradients(rank, self.off_gpu_elements(bucket) - staged)
        yield from ()

    def update(self, rank: Rank) -> Code:
        """Hand the GPU all that it updates, then update the CPU's part."""
        for subgroup in self.resident:
            self.adam(rank, subgroup, None)
        for place, subgroup in enumerate(self.fetched):
            before = self.fetched[place - SLOTS] if place >= SLOTS else None
            self.fetch_and_flush(rank, subgroup, self.flushed.get(before.index) if before else None)
        if self.on_cpu:
            yield rank.launch("first sub-group", rank.profile.host.update_start_s)
        for subgroup in self.on_cpu:
            yield rank.scale(subgroup.elements, subgroup.index)
            yield rank.cpu_adam(subgroup.elements, subgroup.index, casts=True)
            nbytes = BF16 * subgroup.elements
            self.written(rank, subgroup, rank.h2d(rank.stream("upload"), nbytes, "upload parameters", subgroup.index))
        if self.workload.training.zero_stage in (1, 2):
            yield rank.wait(rank.stream("upload"), rank.compute_stream)
            yield from self.gather_updated(rank)

    def fetch_and_flush(self, rank: Rank, subgroup: Subgroup, slot: Operation | None) -> None:
        """Fetch p, m and v when the slot and the last flush are over, update, flush; nothing of it blocks."""
        nbytes = self.state_bytes * subgroup.elements
        after = [slot, self.flushed.get(subgroup.index), rank.reduce_stream.tail]
        fetched = rank.h2d(rank.stream("fetch"), nbytes, "fetch p, m, v", subgroup.index, after=after)
        cast = self.adam(rank, subgroup, fetched)
        rank.free_after(cast, ((rank.gpu_memory, STAGED, BF16 * subgroup.elements),))
        flush = rank.d2h(rank.stream("flush"), nbytes, "flush p, m, v", subgroup.index, after=[cast])
        self.flushed[subgroup.index] = flush

    def adam(self, rank: Rank, subgroup: Subgroup, after: Operation | None) -> Operation:
        """Update on the GPU, and cast into the 16-bit parameters."""
        updated = rank.gpu_adam(subgroup.elements, subgroup.index, [after])
        nbytes = (FP32 + BF16) * subgroup.elements
        cast = rank.elementwise(rank.compute_stream, "d2d", nbytes, "cast parameters", subgroup.index, [updated])
        self.written(rank, subgroup, cast)
        return cast
