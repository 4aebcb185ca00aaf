"""ZO2 (arXiv 2503.12668; github.com/liangyuwang/zo2 at 4bca25c): zeroth-order training through three block slots.

Of `inner_zo_forward`: the order of calls and where the host waits. Blocks are pinned in host memory. Kernels run at
the 16-bit rates of the profile whatever the storage. Further micro-batches repeat the pass.
"""

from __future__ import annotations

from offsim.engine import Code, Operation, Stream
from offsim.inputs.fields import Flag
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32
from offsim.programs.zeroth_order import Compute, ZerothOrderSchedule
from offsim.schedulers.base import ScheduleOptions, option
from offsim.states.pool import Pool

SLOTS = 3
"""Blocks on the GPU: one comes, one is computed, one leaves."""


class Zo2Options(ScheduleOptions):
    """Arguments of its configuration."""

    amp: Flag = option(False, "16-bit parameters, 2 B each way; if not, fp32 as loaded, 4 B")
    overlap: Flag = option(True, "blocks move on streams of their own beside compute", tries=(True, False))
    bucket: Flag = option(False, "a block moves as one flat copy; if not, tensor by tensor", tries=(False, True))


class Zo2(ZerothOrderSchedule):
    """While a block is computed, the next one comes and the one before leaves; it is updated when it comes again."""

    name = "zo2"
    Options = Zo2Options
    stages = (0,)

    def place(self, rank: Rank) -> None:
        self.slots = Pool(rank.gpu_memory, "block slots", SLOTS, self.width * self.workload.layer_elements)

    @property
    def width(self) -> int:
        return BF16 if self.options.amp else FP32

    @property
    def copies(self) -> list[float]:
        """Bytes of each copy of the rank's part of a block."""
        tensors = [tensor.elements for tensor in self.workload.tensors if tensor.layer == 0]
        return [self.width * n / self.ranks for n in ([sum(tensors)] if self.options.bucket else tensors)]

    @property
    def ranks(self) -> int:
        """GPUs that move a block together."""
        return 1

    def blocks(self, rank: Rank, compute: Compute) -> Code:
        layers = self.workload.model.layers
        coming = self.upload(rank, 0)
        for i in range(1, layers + 1):
            if i > 1:
                yield rank.wait(rank.compute_stream)
                self.offload(rank, i - 2)
            yield coming
            yield from compute(i - 1)
            if i < layers:
                coming = self.upload(rank, i)
        yield rank.wait(rank.compute_stream)
        self.offload(rank, layers - 1)
        yield rank.wait(self.stream(rank, "offload"))

    def stream(self, rank: Rank, name: str) -> Stream:
        return rank.stream(name) if self.options.overlap else rank.compute_stream

    def upload(self, rank: Rank, layer: int) -> Operation | None:
        """A block comes into a free slot."""
        slot, stream = self.slots.buffers(), self.stream(rank, "upload")
        copied = None
        for nbytes in self.copies:
            source = self.placed.parameters
            copied = rank.move(nbytes, source, GPU, "upload block", layer=layer, stream=stream, allocates=slot)
            slot = ()
        return copied

    def offload(self, rank: Rank, layer: int) -> None:
        """A block goes back, and its slot is free."""
        copies, stream = self.copies, self.stream(rank, "offload")
        for number, nbytes in enumerate(copies, 1):
            slot = self.slots.buffers() if number == len(copies) else ()
            home = self.placed.parameters
            rank.move(nbytes, GPU, home, "offload block", layer=layer, stream=stream, frees=slot)
