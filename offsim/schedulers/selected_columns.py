"""Backward of ZenFlow: selected columns are updated on the GPU, all accumulate on the host; reselection is left out."""

from __future__ import annotations

from typing import Any

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count, Flag, Number
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Workload
from offsim.schedulers.base import ACCUMULATION, OffloadSchedule, ScheduleOptions, count, option
from offsim.schedulers.zero2_offload import Zero2Offload
from offsim.states.placement import Placed

ZENFLOW = "zero_optimization.zenflow"
CPU_ADAM = "CPU Adam"
ADAM_BYTES = 7 * BF16
"""Of a selected parameter: reads gradient, p, m and v; writes p, m and v; all in 16 bits."""


class ZenFlowOptions(ScheduleOptions):
    """Keys of DeepSpeed's section `zenflow`."""

    update_interval: Count = option(
        4,
        "steps between updates on the CPU",
        tries=(2, 4, 8),
        deepspeed=f"{ZENFLOW}.update_interval",
        deepspeed_default="auto",
        deepspeed_values={"auto": ([], "DeepSpeed chooses it at run time; --set says which")},
    )
    topk_ratio: Number = option(
        0.1, "share of columns updated on the GPU", gt=0, lt=1, tries=(0.05, 0.1), deepspeed=f"{ZENFLOW}.topk_ratio"
    )
    overlap_step: Flag = option(
        False, "the CPU updates under the next interval", tries=(False, True), deepspeed=f"{ZENFLOW}.overlap_step"
    )
    pt_reserved_cores_perc: Number = option(
        0.5, "share of cores not for overlapped CPU Adam", gt=0, lt=1, deepspeed=f"{ZENFLOW}.pt_reserved_cores_perc"
    )
    overlap_comm: Flag | None = option(
        None,
        "gradients move beside compute; none: in stage 3 only",
        deepspeed="zero_optimization.overlap_comm",
        deepspeed_values={None: ([None], "DeepSpeed's default: in stage 3 only")},
    )


class SelectedColumns(Zero2Offload):
    """An iteration is a step of ZenFlow: an interval has several, whose micro-steps all accumulate."""

    Options = ZenFlowOptions
    stages = (1, 2, 3)

    def __init__(self, options: ZenFlowOptions, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.period = options.update_interval
        self.sharded = workload.training.zero_stage == 3
        self.job: Operation | None = None

    @classmethod
    def staleness(cls, options: Any) -> int:
        return options.update_interval * (1 + options.overlap_step) - 1  # type: ignore[no-any-return]

    def place(self, rank: Rank) -> None:
        super(OffloadSchedule, self).place(rank)
        options, owned = self.options, count(self.subgroups)
        rank.host_memory.allocate(ACCUMULATION, BF16 * owned)
        if not self.sharded:
            rank.host_memory.allocate("upload buffer (bf16)", BF16 * owned)
        if options.overlap_step:
            rank.host_memory.allocate("second m, v and gradients, and stale parameters (fp32)", 4 * FP32 * owned)
            rank.give_cores(rank.host, options.pt_reserved_cores_perc)
            rank.give_cores(rank.thread(CPU_ADAM), 1 - options.pt_reserved_cores_perc)
        held = owned if self.sharded else self.workload.parameters
        rank.gpu_memory.allocate("selected columns (m, v, gradients twice)", 4 * BF16 * options.topk_ratio * held)
        if not (self.sharded if options.overlap_comm is None else options.overlap_comm):
            rank.reduce_stream = rank.compute_stream

    def boundary(self, rank: Rank) -> bool:
        """Whether the interval ends with this iteration."""
        return rank.iteration % self.period == 0

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        elements, stream, topk = self.elements(bucket), rank.reduce_stream, self.options.topk_ratio
        begins, ends = first and (rank.iteration - 1) % self.period == 0, last and self.boundary(rank)
        selected = topk * (elements if self.sharded else bucket.elements)
        gathered = rank.elementwise(stream, "d2d", 2 * BF16 * topk * elements, "gather selected columns")
        if not self.sharded:
            rank.wait_event(stream, rank.all_gather(BF16 * selected, -1, [gathered]))
        if ends:
            rank.elementwise(stream, "d2d", 2 * BF16 * selected, "keep selected gradients")
        else:
            self.update_selected(rank, selected)
        if not begins:
            self.accumulate_on_host(rank, elements, first=False)
        elif not ends:
            rank.d2h(stream, BF16 * elements, "gradients to accumulation buffer")
        if ends and self.options.overlap_step:
            rank.elementwise(stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
            yield rank.d2h(stream, FP32 * elements, "fp32 gradients", pinned=False)
        elif ends:
            self.drain_gradients(rank, elements)

    def update_selected(self, rank: Rank, elements: float) -> None:
        """On the stream of gradients."""
        rank.elementwise(rank.reduce_stream, "gpu_adam", ADAM_BYTES * elements, "AdamW of selected columns")
