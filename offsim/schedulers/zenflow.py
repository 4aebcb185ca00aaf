"""ZenFlow (arXiv 2505.12242) as DeepSpeed 0.19.3 to 0.19.6 releases it (runtime/zenflow).

The largest gradient columns are updated on the GPU in every step, all others on the CPU once an interval, beside the
next one with `overlap_step`. DeepSpeed sets its accumulation steps to the interval. The interval is fixed: neither the
automatic one is simulated, nor warm-up, nor m and v of selected columns in host memory (`offload: true`).
"""

from __future__ import annotations

from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16
from offsim.schedulers.selected_columns import CPU_ADAM, SelectedColumns


class ZenFlow(SelectedColumns):
    """What was accumulated over an interval is applied at its end, or with `overlap_step` at the end of the next."""

    name = "zenflow"
    period = 4  # with the default interval
    approximation = "selected columns step more often"

    def before_update(self, rank: Rank) -> Code:
        if self.boundary(rank):
            yield from super().before_update(rank)

    def update(self, rank: Rank) -> Code:
        if not self.boundary(rank):
            return
        if self.options.overlap_step:
            if self.job is not None:
                yield self.job
                yield from self.upload(rank, self.job.iteration)
            for group in self.subgroups:
                yield rank.scale(group.elements, group.index)
            self.job = rank.spawn(CPU_ADAM, self.update_late(rank))
        else:
            for group in self.subgroups:
                yield rank.scale(group.elements, group.index)
                yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index])
            yield from self.upload(rank, rank.iteration)
        held = self.workload.partition if self.sharded else self.workload.parameters
        self.update_selected(rank, self.options.topk_ratio * held)
        yield rank.wait(rank.reduce_stream)

    def upload(self, rank: Rank, update: int) -> Code:
        """Cast on the CPU and a blocking copy: from pinned memory only where the update does not overlap."""
        pinned = not (self.sharded or self.options.overlap_step)
        for group in self.subgroups:
            yield rank.downcast(group.elements, group.index, fresh=not pinned)
            copied = rank.h2d(
                rank.stream("upload"), BF16 * group.elements, "upload parameters", group.index, pinned=pinned
            )
            self.written(rank, group, copied, update=update)
            yield copied
        yield from self.gather_updated(rank)

    def update_late(self, rank: Rank) -> Code:
        """On the thread's cores: Adam, and a copy of the parameters that the next boundary uploads."""
        thread = rank.thread(CPU_ADAM)
        for group in self.subgroups:
            yield rank.cpu_adam(group.elements, group.index, self.placed.optimizer[group.index], thread=thread)
            yield rank.copy_state(group.elements, group.index, thread)
