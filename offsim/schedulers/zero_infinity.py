"""ZeRO-Infinity (arXiv 2104.07857) as DeepSpeed 0.16.2 to 0.19.6 releases it (zero/stage3.py, swap_tensor)."""

from __future__ import annotations

from offsim.engine import Code
from offsim.inputs.fields import Flag
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import OPTIMIZER, option
from offsim.schedulers.stored_parameters import StoredParameters, StoredParametersOptions


class ZeroInfinityOptions(StoredParametersOptions):
    """Keys of `offload_optimizer`. Either pipeline flag selects handles of their own for reads and writes."""

    pipeline_read: Flag = option(
        False, "read the next sub-group ahead", tries=(False, True), deepspeed=f"{OPTIMIZER}.pipeline_read"
    )
    pipeline_write: Flag = option(
        False, "write the last sub-group behind", tries=(False, True), deepspeed=f"{OPTIMIZER}.pipeline_write"
    )

    @property
    def least_buffers(self) -> int:
        return 4 * (1 + self.pipeline_read + self.pipeline_write)


class ZeroInfinity(StoredParameters):
    """fp32 gradients are written in backward; each sub-group's state is read, updated on the CPU and written back."""

    name = "zero_infinity"
    Options = ZeroInfinityOptions
    filled = 0  # elements in the gradient buffer in use
    submitted = 0  # gradient buffers whose writes were not awaited yet

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        if last:
            swapped = {subgroup.index for subgroup in self.swapped(rank)}
            stored = sum(share for index, share in bucket.shares if index in swapped)
            yield from self.store_gradients(rank, self.off_gpu_elements(bucket) - stored)
            if stored:
                yield from self.swap_out_gradients(rank, stored)

    def swap_out_gradients(self, rank: Rank, elements: int) -> Code:
        """Cast on the GPU, then blocking copies into all free buffers; with none left, wait for all writes."""
        rank.elementwise(rank.reduce_stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
        while elements:
            part = min(elements, self.largest - self.filled)
            yield rank.d2h(rank.reduce_stream, FP32 * part, "fp32 gradients")
            elements -= part
            self.filled += part
            if self.filled == self.largest:
                self.write_gradients(rank)
                if self.submitted == self.buffers:
                    yield from self.await_writes(rank)

    def write_gradients(self, rank: Rank) -> None:
        """Submit the buffer that has been filled."""
        self.write(rank, FP32 * self.filled, self.swapped(rank)[0], "gradients")
        self.submitted += 1
        self.filled = 0

    def await_writes(self, rank: Rank) -> Code:
        """Wait for the handles of writes: all buffers are free then."""
        yield rank.wait(*self.handles(rank, "write"))
        self.submitted = 0

    def swap_in(self, rank: Rank, subgroup: Subgroup) -> Code:
        following = self.swapped(rank)
        if subgroup not in following:
            return
        if first := subgroup is following[0]:
            if self.filled:
                self.write_gradients(rank)
            yield from self.await_writes(rank)
        if not (self.options.pipeline_read or self.options.pipeline_write):
            yield self.read(rank, self.state_bytes * subgroup.elements, subgroup, "read p, m, v")
            yield self.read(rank, FP32 * subgroup.elements, subgroup, "read gradients")
            return
        if first or not self.options.pipeline_read:
            self.read(rank, (self.state_bytes + FP32) * subgroup.elements, subgroup, "read p, m, v, gradients")
        yield rank.wait(*self.handles(rank, "read"))
        for later in following[following.index(subgroup) + 1 :][: int(self.options.pipeline_read)]:
            self.read(rank, (self.state_bytes + FP32) * later.elements, later, "read p, m, v, gradients")

    def swap_out(self, rank: Rank, subgroup: Subgroup) -> Code:
        if self.stored(rank, subgroup):
            if self.options.pipeline_write:
                yield from self.await_writes(rank)
            written = self.write(rank, self.state_bytes * subgroup.elements, subgroup, "write p, m, v")
            yield None if self.options.pipeline_write else written

    def update(self, rank: Rank) -> Code:
        yield from super().update(rank)
        yield from self.await_writes(rank)
