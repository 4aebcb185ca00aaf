"""Deep Optimizer States: the optimizer's state interleaves between CPU and GPU."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.profiler import record_function

from .adam import fused_adam
from .device import BF16, FP32, Device, Mark
from .model import Transformer
from .zero3_offload import LOSS_SCALE, Subgroup, Zero3OffloadAsyncGrads


class DeepOptimizerStates(Zero3OffloadAsyncGrads):
    """Of each block of `update_stride` sub-groups the last is fetched to the GPU, updated there and flushed back."""

    scheduler = "deep_optimizer_states"
    measured: ClassVar[dict[str, dict[str, Any]]] = {f"_stride{n}": {"update_stride": n} for n in (2, 3, 4, 8)}
    columns: ClassVar[dict[str, Any]] = Zero3OffloadAsyncGrads.columns | {"update_stride": 2, "dos_build": "C"}
    pinned_state = True

    def __init__(
        self, model: Transformer, device: Device, options: dict[str, Any], subgroup_size: int, bucket_elements: int
    ) -> None:
        super().__init__(model, device, options, subgroup_size, bucket_elements)
        self.stride = self.cells["update_stride"]
        self.copy_streams = [device.stream() for _ in range(3)]  # of momentum, variance, parameters
        self.upload = device.stream()
        largest = max(group.elements for group in self.subgroups)
        self.slot = [device.empty(largest, FP32) for _ in range(3)]
        self.slot_gradient = device.empty(largest, FP32)
        self.staged: dict[int, Tensor] = {}  # bf16 gradients on the GPU, by sub-group
        self.to_flush: Subgroup | None = None
        self.updated: Mark | None = None
        self.background = ThreadPoolExecutor(1)
        self.staging = [device.host(largest, BF16) for _ in range(self.stride - 1)]
        self.uploaded: dict[int, Mark] = {}  # by staging buffer
        self.uploads: dict[int, Future[Mark]] = {}  # that forward has not waited for, by sub-group

    def runs_on_gpu(self, group: Subgroup) -> bool:
        """Whether this is the last of its block."""
        return (group.index + 1) % self.stride == 0

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep gradients of what runs on the GPU there, in bf16."""
        if not self.runs_on_gpu(group):
            super().store(group, place, gradient)
            return
        if group.index not in self.staged:
            self.staged[group.index] = self.device.empty(group.elements, BF16)
        self.staged[group.index][place].copy_(gradient)

    def step(self) -> None:
        """Update all sub-groups. What the last block uploads, and its flush, may reach into the next iteration."""
        self.steps += 1
        block: list[Subgroup] = []  # CPU sub-groups whose bf16 parameters are not yet uploaded
        for group in self.subgroups:
            if self.runs_on_gpu(group):
                self.update_on_gpu(group)
                continue
            if group.index % self.stride == 0:
                self.flush_previous_and_fetch_next(group)
                self.upload.synchronize()
            self.update_on_cpu(group)
            block.append(group)
            if (group.index + 2) % self.stride == 0 or group is self.subgroups[-1]:
                for buffer, waiting in enumerate(block):
                    done = self.background.submit(self.downcast_and_upload, waiting, buffer)
                    self.uploads[waiting.index] = done
                block = []
        self.upload.synchronize()

    def flush_previous_and_fetch_next(self, trigger: Subgroup) -> None:
        """A tensor's fetch waits for that tensor's flush only: both directions of the link are busy at once."""
        if self.to_flush is not None:
            self.flush(self.to_flush)
        following = trigger.index + self.stride - 1
        if following < len(self.subgroups):
            group = self.subgroups[following]
            with record_function(f"fetch sub-group {group.index}"):
                for stream, slot, tensor in zip(self.copy_streams, self.slot, group.state, strict=True):
                    with stream.use():
                        slot[: group.elements].copy_(tensor, non_blocking=True)

    def flush(self, group: Subgroup) -> None:
        """Enqueue the copies of the state back to the host, behind its update."""
        assert self.updated is not None
        with record_function(f"flush sub-group {group.index}"):
            for stream, slot, tensor in zip(self.copy_streams, self.slot, group.state, strict=True):
                stream.wait(self.updated)
                with stream.use():
                    tensor.copy_(slot[: group.elements], non_blocking=True)
        self.to_flush = None

    def update_on_gpu(self, group: Subgroup) -> None:
        """Wait for the state, then launch the update; the host thread goes on."""
        for stream in self.copy_streams:
            stream.synchronize()
        momentum, variance, master = (slot[: group.elements] for slot in self.slot)
        gradient = self.slot_gradient[: group.elements]
        with record_function(f"GPU Adam sub-group {group.index}"):
            staged = self.staged.pop(group.index)
            gradient.copy_(staged)
            self.compute.uses(staged)
            gradient.mul_(1 / LOSS_SCALE)
            fused_adam(master, gradient, momentum, variance, self.steps)
            # With the flush, as in the released code, forward could find the last sub-group's parameters stale.
            group.bf16.copy_(master)
        self.updated = self.compute.mark()
        self.to_flush = group

    def downcast_and_upload(self, group: Subgroup, buffer: int) -> Mark:
        """The background thread: nobody waits for it but the forward of the layers that need its parameters."""
        if buffer in self.uploaded:
            self.uploaded[buffer].synchronize()
        staging = self.staging[buffer][: group.elements]
        with record_function(f"downcast sub-group {group.index}"):
            staging.copy_(group.master)
        with record_function(f"upload sub-group {group.index}"), self.upload.use():
            group.bf16.copy_(staging, non_blocking=True)
        self.uploaded[buffer] = self.upload.mark()
        return self.uploaded[buffer]

    def before_forward(self, needed: list[int], module: nn.Module, inputs: object) -> None:
        """Let forward wait for the uploads that it needs, and for no others."""
        for index in needed:
            if index in self.uploads:
                self.compute.wait(self.uploads.pop(index).result())

    def finish(self) -> None:
        """Wait until all parameters and state are where they live."""
        for upload in self.uploads.values():
            self.compute.wait(upload.result())
        self.uploads = {}
        if self.to_flush is not None:
            self.flush(self.to_flush)
        self.device.synchronize()

    def close(self) -> None:
        """End the background thread."""
        self.background.shutdown()
