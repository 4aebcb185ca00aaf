"""LoHan (Ratel, arXiv 2403.06504; Fuyou is its predecessor), as its code at feb88fe releases it.

Everything is on SSDs; one CPU-Adam process updates a sub-group while backward goes on. No message of that process's end
returns: the code relies on a lag of one sub-group, here the host thread waits for it. It stands still for reads and
writes, as calls that are not said to be asynchronous. Inputs of each half-layer go to host memory, the last layer's
stay. Left out: `swap_ratio`, which keeps some GEMM outputs in place of recomputation (by default none).
"""

from __future__ import annotations

from offsim.engine import Code, Operation
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.prefetching import Prefetching

IN_FLIGHT = 3
"""Sub-groups in host memory: one is read, one updated, one written."""


class Lohan(Prefetching):
    """A sub-group is updated once the first gradient of the next one arrives, and written one sub-group later."""

    name = "lohan"
    kept_inputs = 2
    filling: Subgroup | None = None
    """Whose gradients arrive."""

    def place(self, rank: Rank) -> None:
        super().place(rank)
        largest = max(subgroup.elements for subgroup in self.subgroups)
        rank.host_memory.allocate("p, m, v in flight (fp32)", IN_FLIGHT * 3 * FP32 * largest)
        rank.host_memory.allocate("gradients in flight (fp32)", IN_FLIGHT * FP32 * largest)
        rank.host_memory.allocate("updated parameters (bf16)", BF16 * largest)
        self.reads: dict[int, Operation] = {}
        self.updates: dict[int, Operation] = {}

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        """The host waits for the kernels before it copies their input."""
        yield rank.wait(rank.compute_stream)
        yield from super().keep(rank, layer, step, nbytes, after)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Check and cast on the GPU, copy in 32 bits; further micro-steps are added on the GPU."""
        stream, elements = rank.reduce_stream, self.elements(bucket)
        if not first:
            rank.h2d(stream, FP32 * elements, "accumulated gradients")
        rank.elementwise(stream, "conversion", (BF16 + FP32) * elements, "check, bf16 to fp32")
        rank.d2h(stream, FP32 * elements, "fp32 gradients")
        for index, _ in bucket.shares if last else ():
            subgroup = self.subgroups[index]
            if self.filling is not None and self.filling is not subgroup:
                yield from self.finished(rank, self.filling)
            self.filling = subgroup

    def finished(self, rank: Rank, subgroup: Subgroup) -> Code:
        """All gradients of a sub-group are on their way: hand it over, and write the one before it."""
        arrived = rank.reduce_stream.tail
        if subgroup.index not in self.reads:
            self.reads[subgroup.index] = self.read_state(rank, subgroup, subgroup.elements)
        if subgroup.index:
            following = self.subgroups[subgroup.index - 1]
            self.reads[following.index] = self.read_state(rank, following, following.elements)
        yield self.reads.pop(subgroup.index)
        before = list(self.updates)
        self.updates[subgroup.index] = rank.spawn("Adam process", self.adam(rank, subgroup, arrived))
        for index in before:
            yield from self.write(rank, self.subgroups[index])

    def adam(self, rank: Rank, subgroup: Subgroup, arrived: Operation | None) -> Code:
        yield arrived
        yield rank.cpu_adam(subgroup.elements, subgroup.index, thread=rank.thread("Adam process"))

    def write(self, rank: Rank, subgroup: Subgroup) -> Code:
        yield self.updates.pop(subgroup.index)
        yield rank.downcast(subgroup.elements, subgroup.index)
        stored = self.write_parameters(rank, subgroup, subgroup.elements)
        self.written(rank, subgroup, stored)
        yield stored
        yield self.write_state(rank, subgroup, subgroup.elements)

    def update(self, rank: Rank) -> Code:
        """What backward has left: the first sub-group, whose gradients come last."""
        assert self.filling is not None
        yield from self.finished(rank, self.filling)
        yield from self.write(rank, self.filling)
        self.filling = None
