"""A CPU-Adam process beside the host thread, first in first out, which updates sub-groups as their gradients arrive."""

from __future__ import annotations

from typing import Any

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import FP32, Subgroup, Workload
from offsim.schedulers.superoffload_options import SuperOffloadOptions
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.states.placement import Placed, tiers_of

PROCESS = "CPU Adam process"


class AdamProcess(Zero3Offload):
    """The process has a share of the rank's cores, the host thread the rest; tasks and results wait in queues."""

    parameter_kinds = (GPU,)

    def __init__(self, options: SuperOffloadOptions, workload: Workload, placed: Placed) -> None:
        super().__init__(options, workload, placed)
        self.arrived = dict.fromkeys(range(len(self.subgroups)), 0)
        """Gradients of each sub-group that are on their way or there, in elements."""
        self.tasks: dict[int, Operation] = {}
        """Ends of the tasks whose results were not taken yet, by sub-group."""

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """The first sub-groups stay on the GPU: their gradients come last."""
        return tiers_of([(GPU, 1 - options.cpu_ratio), (cls.optimizer_home, "rest")], subgroups)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        largest = max((subgroup.elements for subgroup in self.off_gpu()), default=0)
        rank.host_memory.allocate("staging buffer of the process", FP32 * largest)
        rank.give_cores(rank.host, 1 - self.options.cpuadam_cores_perc)
        rank.give_cores(rank.thread(PROCESS), self.options.cpuadam_cores_perc)

    def complete(self, subgroup: Subgroup, share: int) -> bool:
        """Whether the sub-group's gradients are all flushed with this share."""
        self.arrived[subgroup.index] = (self.arrived[subgroup.index] + share) % subgroup.elements
        return not self.arrived[subgroup.index]

    def submit(self, rank: Rank, subgroup: Subgroup) -> Operation:
        """Queue a task, which begins when what is on the reduce stream now has ended; returns its end."""
        end = rank.spawn(PROCESS, self.work(rank, subgroup, rank.reduce_stream.tail))
        self.tasks[subgroup.index] = end
        return end

    def take_finished(self, rank: Rank) -> Code:
        """At most one result, if there is one."""
        if self.tasks and next(iter(self.tasks.values())).done:
            yield from self.take_result(rank)

    def take_result(self, rank: Rank) -> Code:
        """Wait for the oldest result."""
        yield self.tasks.pop(next(iter(self.tasks)))

    def work(self, rank: Rank, subgroup: Subgroup, ready: Operation | None) -> Code:
        """What the process does for a sub-group."""
        raise NotImplementedError
