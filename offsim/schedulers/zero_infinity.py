"""ZeRO-Infinity as DeepSpeed releases it: optimizer state, and optionally parameters, on storage (arXiv 2104.07857).

Steps after deepspeed/runtime/zero/stage3.py and swap_tensor, 0.16.2 to 0.19.6.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from offsim.engine import Code
from offsim.inputs.errors import Expected
from offsim.inputs.fields import Flag
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.base import offload_optimizer
from offsim.schedulers.stored_parameters import StoredParameters, StoredParametersOptions


class ZeroInfinityOptions(StoredParametersOptions):
    """Keys of `offload_optimizer`. Either pipeline flag selects handles of their own for reads and writes."""

    pipeline_read: Flag = Field(
        default=False, description="read the next sub-group ahead", json_schema_extra={"try": [False, True]}
    )
    pipeline_write: Flag = Field(
        default=False, description="write the last sub-group behind", json_schema_extra={"try": [False, True]}
    )

    @model_validator(mode="after")
    def _buffers_suffice(self) -> ZeroInfinityOptions:
        least = 4 * (1 + self.pipeline_read + self.pipeline_write)
        if self.buffer_count < least and self.host_share is None:
            raise Expected(f"at least {least} with these pipeline flags", at=("buffer_count",))
        return self


class ZeroInfinity(StoredParameters):
    """fp32 gradients are written in backward; each sub-group's state is read, updated on the CPU and written back."""

    name = "zero_infinity"
    Options = ZeroInfinityOptions
    filled = 0
    """Elements in the gradient buffer that is being filled."""
    submitted = 0
    """Gradient buffers whose writes have been submitted and not awaited."""

    @classmethod
    def deepspeed_keys(cls, options: Any) -> dict[str, Any] | None:
        own = {name: getattr(options, name) for name in ("pipeline_read", "pipeline_write", "buffer_count")}
        parameters = {
            "buffer_count": options.parameter_buffer_count,
            "buffer_size": options.parameter_buffer_size,
            "max_in_cpu": options.max_in_cpu,
        }
        keys = {f"zero_optimization.offload_param.{key}": value for key, value in parameters.items()}
        return offload_optimizer(device="nvme", **own) | keys

    @classmethod
    def deepspeed_notes(cls, options: Any) -> list[str]:
        return []

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        self.accumulate_on_host(rank, self.elements(bucket), first)
        if last:
            stored = sum(share for index, share in bucket.shares if self.stored(rank, self.subgroups[index]))
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
                    yield from self.await_gradients(rank)

    def write_gradients(self, rank: Rank) -> None:
        """Submit the buffer that has been filled."""
        first = next(subgroup for subgroup in self.subgroups if self.stored(rank, subgroup))
        self.write(rank, FP32 * self.filled, first, "gradients")
        self.submitted += 1
        self.filled = 0

    def await_gradients(self, rank: Rank) -> Code:
        """Wait until all gradient buffers are written."""
        yield rank.wait(*self.handles(rank, "write"))
        self.submitted = 0

    def swap_in(self, rank: Rank, subgroup: Subgroup) -> Code:
        swapped = [s for s in self.subgroups if self.stored(rank, s)]
        if not self.stored(rank, subgroup):
            return
        if subgroup is swapped[0]:
            if self.filled:
                self.write_gradients(rank)
            yield from self.await_gradients(rank)
        if not (self.options.pipeline_read or self.options.pipeline_write):
            yield self.read(rank, 3 * FP32 * subgroup.elements, subgroup, "read p, m, v")
            yield self.read(rank, FP32 * subgroup.elements, subgroup, "read gradients")
            return
        if subgroup is swapped[0] or not self.options.pipeline_read:
            self.read(rank, 4 * FP32 * subgroup.elements, subgroup, "read p, m, v, gradients")
        yield rank.wait(*self.handles(rank, "read"))
        following = swapped[swapped.index(subgroup) + 1 :]
        if self.options.pipeline_read and following:
            self.read(rank, 4 * FP32 * following[0].elements, following[0], "read p, m, v, gradients")

    def swap_out(self, rank: Rank, subgroup: Subgroup) -> Code:
        if not self.stored(rank, subgroup):
            return
        if self.options.pipeline_write:
            yield rank.wait(*self.handles(rank, "write"))
        written = self.write(rank, 3 * FP32 * subgroup.elements, subgroup, "write p, m, v")
        if not self.options.pipeline_write:
            yield written

    def update(self, rank: Rank) -> Code:
        yield from super().update(rank)
        yield rank.wait(*self.handles(rank, "write"))
