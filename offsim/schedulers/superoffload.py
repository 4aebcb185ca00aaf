"""SuperOffload (arXiv 2509.21271) as DeepSpeed releases it (runtime/superoffload), and as its paper describes it.

Gradients arrive in shared memory, which is pageable, and a process begins CPU Adam while backward goes on; the host
thread casts and uploads all sub-groups in the step. With clipping all updates wait for the step. No norm exceeds its
limit and no step overflows, so nothing is rolled back.
"""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup
from offsim.schedulers.adam_process import PROCESS, AdamProcess
from offsim.schedulers.base import OPTIMIZER
from offsim.schedulers.superoffload_options import SuperOffloadOptions

LIVE = "fp32 gradients that the process will fetch"


class SuperOffload(AdamProcess):
    """A sub-group's CPU Adam begins in backward, when its gradients have arrived; casts and uploads are in the step."""

    name = "superoffload"
    Options = SuperOffloadOptions
    deepspeed: ClassVar[dict[str, Any] | None] = {f"{OPTIMIZER}.device": "cpu", f"{OPTIMIZER}.super_offload": True}

    @property
    def early(self) -> bool:
        """Whether updates begin in backward."""
        return self.options.version != "0.18.9" or not self.options.gradient_clipping

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        if self.options.version != "paper" or not (first and last):
            self.accumulate_on_host(rank, self.elements(bucket), first)
        for index, share in bucket.shares if last else ():
            subgroup = self.subgroups[index]
            if self.placed.optimizer[index] == GPU:
                continue
            if self.options.version == "paper":
                self.drain_gradients(rank, share)
            else:
                yield from self.flush(rank, share)
            if self.complete(subgroup, share) and self.early:
                if self.options.version == "0.18.9":
                    yield rank.wait(rank.reduce_stream)
                self.submit(rank, subgroup)
                yield from self.take_finished(rank)

    def flush(self, rank: Rank, elements: int) -> Code:
        """A blocking copy into shared memory; the older versions keep the gradients on the GPU for the process too."""
        rank.elementwise(rank.reduce_stream, "conversion", (BF16 + FP32) * elements, "bf16 to fp32")
        if self.options.version == "0.18.0":
            rank.gpu_memory.allocate(LIVE, FP32 * elements)
        yield rank.d2h(rank.reduce_stream, FP32 * elements, "fp32 gradients", pinned=False)

    def work(self, rank: Rank, subgroup: Subgroup, ready: Operation | None) -> Code:
        """Gradients into the pinned buffer, Adam; in the paper also the upload, which the GPU casts."""
        thread, index, nbytes = rank.thread(PROCESS), subgroup.index, FP32 * subgroup.elements
        yield ready
        if self.options.version == "0.18.9":
            yield rank.copy_state(subgroup.elements, index, thread)
        elif self.options.version == "0.18.0":
            live, stream = ((rank.gpu_memory, LIVE, nbytes),), rank.stream("gradients of the process")
            yield rank.move(nbytes, GPU, HOST, "fetch gradients", index, stream=stream, thread=thread, frees=live)
        yield rank.cpu_adam(subgroup.elements, index, self.placed.optimizer[index], thread=thread)
        if self.options.version == "paper":
            upload = rank.stream("upload")
            rank.h2d(upload, nbytes, "upload parameters", index, thread=thread)
            cast = rank.elementwise(upload, "d2d", (FP32 + BF16) * subgroup.elements, "cast parameters", index)
            self.written(rank, subgroup, cast)

    def take_result(self, rank: Rank) -> Code:
        """The release copies updated parameters out of shared memory."""
        index = next(iter(self.tasks))
        yield from super().take_result(rank)
        if self.options.version != "paper":
            yield rank.copy_state(self.subgroups[index].elements, index)

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        return not options.gradient_clipping

    def before_update(self, rank: Rank) -> Code:
        """Only clipping needs the norm."""
        if self.options.gradient_clipping:
            yield from super().before_update(rank)

    def update(self, rank: Rank) -> Code:
        while self.tasks:
            yield from self.take_result(rank)
        for subgroup in self.subgroups:
            if self.placed.optimizer[subgroup.index] == GPU:
                yield from self.update_resident(rank, [subgroup])
            elif self.options.version != "paper":
                yield rank.scale(subgroup.elements, subgroup.index)
                if not self.early:
                    self.submit(rank, subgroup)
                    yield from self.take_result(rank)
                yield from self.store_parameters(rank, subgroup)
