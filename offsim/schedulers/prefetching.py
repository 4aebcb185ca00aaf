"""What schedules with parameters on storage share: slices are read ahead and copied to the GPU, first in, first out."""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, FP32, Subgroup
from offsim.schedulers.base import ScheduleOptions, TrainingSchedule, option
from offsim.states.pool import Pool


class PrefetchingOptions(ScheduleOptions):
    """How far reads run ahead."""

    window: Count = option(3, "layers on the GPU, and in host buffers, at once", tries=(2, 3, 4, 8))


class Prefetching(TrainingSchedule):
    """Parameters and optimizer state live on storage; layers pass through a window in host memory and on the GPU."""

    Options: ClassVar[type[ScheduleOptions]] = PrefetchingOptions
    parameter_home: ClassVar[str] = "nvme"
    parameter_kinds: ClassVar[tuple[str, ...]] = ("storage",)
    optimizer_home: ClassVar[str] = "nvme"
    optimizer_kinds: ClassVar[tuple[str, ...]] = ("storage",)
    activation_home: ClassVar[str] = HOST
    gradients_with_state: ClassVar[bool] = False

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.layers_ahead = self.options.window
        largest = max(self.workload.layer_elements, self.workload.vocab_elements)
        nbytes = BF16 * largest / self.workload.training.data_parallel
        self.window = Pool(rank.host_memory, "parameter buffers (bf16)", self.options.window, nbytes)

    def fetch_slice(self, rank: Rank, wanted: Fetch) -> Code:
        """Read into a buffer, and copy on; nothing waits but the layer's kernels."""
        nbytes, tier = BF16 * wanted.elements / self.workload.training.data_parallel, self.placed.parameters
        layer, taken, reads = wanted.layer, self.window.buffers(), rank.stream(f"{tier} parameters")
        read = rank.move(
            nbytes, tier, HOST, "read parameters", layer=layer, stream=reads, after=wanted.after, allocates=taken
        )
        yield from ()
        return rank.move(
            nbytes, HOST, GPU, "fetch parameters", layer=layer, after=[read], allocates=wanted.memory, frees=taken
        )

    def read_state(self, rank: Rank, subgroup: Subgroup, elements: float, **how: Any) -> Operation:
        """Read p, m and v of so many parameters."""
        tier = self.placed.optimizer[subgroup.index]
        stream = rank.stream(f"{tier} read")
        return rank.move(3 * FP32 * elements, tier, HOST, "read p, m, v", subgroup.index, stream=stream, **how)

    def write_parameters(self, rank: Rank, subgroup: Subgroup, elements: float, **how: Any) -> Operation:
        """Write so many parameters in 16 bits."""
        tier = self.placed.parameters
        stream = rank.stream(f"{tier} write")
        return rank.move(BF16 * elements, HOST, tier, "write parameters", subgroup.index, stream=stream, **how)

    def write_state(self, rank: Rank, subgroup: Subgroup, elements: float, **how: Any) -> Operation:
        """Write p, m and v of so many parameters."""
        tier = self.placed.optimizer[subgroup.index]
        stream = rank.stream(f"{tier} write")
        return rank.move(3 * FP32 * elements, HOST, tier, "write p, m, v", subgroup.index, stream=stream, **how)

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return True

    def before_update(self, rank: Rank) -> Code:
        """No global norm: updates have begun in backward."""
        yield from ()
