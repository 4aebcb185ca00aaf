"""ZeRO-3 with its optimizer on the CPU, for one rank, so that nothing is gathered or reduced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .adam import fused_adam
from .device import BF16, FP32, Device, Mark
from .model import Transformer

LOSS_SCALE = 128.0  # a power of two: scaling and unscaling change no digit
IN_FLIGHT = 2  # gradient buckets


@dataclass
class Subgroup:
    """Consecutive parameters that are updated together. All tensors are flat; state is fp32."""

    index: int
    elements: int
    members: list[nn.Parameter]
    resident: bool
    bf16: Tensor
    master: Tensor
    momentum: Tensor
    variance: Tensor
    gradient: Tensor
    accumulated: Tensor

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """Momentum, variance and parameters: in the order in which they are moved."""
        return self.momentum, self.variance, self.master


def build_subgroups(parameters: Sequence[nn.Parameter], size: int) -> list[list[nn.Parameter]]:
    """Split parameters; a sub-group is closed as soon as it holds `size` elements."""
    groups: list[list[nn.Parameter]] = [[]]
    held = 0
    for parameter in parameters:
        if held >= size:
            groups.append([])
            held = 0
        groups[-1].append(parameter)
        held += parameter.numel()
    return groups


class Zero3Offload:
    """Optimizer state on the CPU, blocking gradient flushes, a serial update: the loop of DeepSpeed's ZeRO-3 offload.

    One rank, so nothing is gathered or reduced. Sub-groups from `cpu_ratio` on have their state on the GPU (TwinFlow).
    """

    scheduler = "zero3_offload"
    measured: ClassVar[dict[str, dict[str, Any]]] = {"": {}}
    """What a measured variant adds to the schedule's name -> its options, as offsim names them."""
    columns: ClassVar[dict[str, Any]] = {"cpu_ratio": 1.0}
    """Columns of options in a table of measured runs, and their cells by default."""
    pinned_state = False

    def __init__(
        self, model: Transformer, device: Device, options: dict[str, Any], subgroup_size: int, bucket_elements: int
    ) -> None:
        self.cells = self.columns | options
        self.device = device
        self.compute, self.reduce = device.compute, device.stream()
        self.steps = 0
        self.watch: Callable[[nn.Parameter, Tensor], None] | None = None
        groups = build_subgroups(list(model.parameters()), subgroup_size)
        on_cpu = int(self.cells["cpu_ratio"] * len(groups))
        self.where: dict[nn.Parameter, tuple[Subgroup, int]] = {}
        self.subgroups = [self.place(i, members, resident=i >= on_cpu) for i, members in enumerate(groups)]
        self.on_cpu, self.on_gpu = self.subgroups[:on_cpu], self.subgroups[on_cpu:]
        capacity = max(bucket_elements, *(parameter.numel() for parameter in self.where))
        self.buckets = [device.empty(capacity, BF16) for _ in range(IN_FLIGHT)]
        self.filled = 0
        self.collected: list[tuple[nn.Parameter, int]] = []
        self.flushes: list[Mark] = []
        for piece in model.pieces():
            needed = sorted({self.where[parameter][0].index for parameter in piece.parameters()})
            piece.register_forward_pre_hook(partial(self.before_forward, needed))

    def place(self, index: int, members: list[nn.Parameter], resident: bool) -> Subgroup:
        """Make the parameters views of one flat tensor, and allocate the state where it lives."""
        elements = sum(parameter.numel() for parameter in members)
        bf16 = torch.cat([parameter.detach().flatten() for parameter in members])
        on_device = partial(self.device.full, elements, FP32, 0.0)
        pinned = partial(self.device.host, elements, FP32)
        pageable = partial(torch.zeros, elements, dtype=FP32)
        state = on_device if resident else pinned if self.pinned_state else pageable
        master, momentum, variance = state(), state(), state()
        master.copy_(bf16)
        gradient = on_device() if resident else pinned()
        accumulated = self.device.host(elements, BF16)
        group = Subgroup(index, elements, members, resident, bf16, master, momentum, variance, gradient, accumulated)
        offset = 0
        for parameter in members:
            parameter.data = bf16[offset : offset + parameter.numel()].view_as(parameter)
            parameter.register_post_accumulate_grad_hook(self.collect)
            self.where[parameter] = (group, offset)
            offset += parameter.numel()
        return group

    # Backward

    def collect(self, parameter: nn.Parameter) -> None:
        """Copy a gradient that autograd has finished into the bucket, on the reduce stream."""
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        if self.watch is not None:
            self.watch(parameter, gradient)
        if self.filled + gradient.numel() > self.buckets[0].numel():
            self.flush_bucket()
        self.reduce.wait(self.compute.mark())
        with self.reduce.use():
            self.buckets[0][self.filled : self.filled + gradient.numel()].copy_(gradient.flatten())
        self.reduce.uses(gradient)
        self.collected.append((parameter, self.filled))
        self.filled += gradient.numel()

    def flush_bucket(self) -> None:
        """Store the gradients of a bucket; the host waits where too many buckets are in flight."""
        if len(self.flushes) == IN_FLIGHT:
            self.flushes.pop(0).synchronize()
        with record_function("flush bucket"), self.reduce.use():
            for parameter, start in self.collected:
                group, offset = self.where[parameter]
                gradient = self.buckets[0][start : start + parameter.numel()]
                place = slice(offset, offset + parameter.numel())
                group.accumulated[place].copy_(gradient, non_blocking=True)
                gradient.copy_(group.accumulated[place], non_blocking=True)
                self.store(group, place, gradient)
        self.flushes.append(self.reduce.mark())
        self.buckets = self.buckets[1:] + self.buckets[:1]
        self.filled = 0
        self.collected = []

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep a gradient for the update. Where it goes to the CPU the host thread stands still."""
        if group.resident:
            group.gradient[place].copy_(gradient)
        else:
            group.gradient[place].copy_(gradient.cpu())

    def end_backward(self) -> None:
        """Flush the last bucket, and wait until all gradients are where the update needs them."""
        self.flush_bucket()
        self.reduce.synchronize()
        self.compute.wait(self.reduce.mark())
        self.flushes = []

    # Update

    def step(self) -> None:
        """Update all sub-groups."""
        self.steps += 1
        for group in self.on_cpu:
            self.update_on_cpu(group)
            with record_function(f"upload sub-group {group.index}"):
                group.bf16.copy_(group.master.to(BF16))
        self.update_resident()

    def update_on_cpu(self, group: Subgroup) -> None:
        """Scale and Adam; the host thread works."""
        with record_function(f"scale sub-group {group.index}"):
            group.gradient.mul_(1 / LOSS_SCALE)
        with record_function(f"CPU Adam sub-group {group.index}"):
            fused_adam(group.master, group.gradient, group.momentum, group.variance, self.steps)

    def update_resident(self) -> None:
        """Update what lives on the GPU for good."""
        for group in self.on_gpu:
            with record_function(f"GPU Adam sub-group {group.index}"):
                group.gradient.mul_(1 / LOSS_SCALE)
                fused_adam(group.master, group.gradient, group.momentum, group.variance, self.steps)
                group.bf16.copy_(group.master)

    def before_forward(self, needed: list[int], module: nn.Module, inputs: object) -> None:
        """Let forward wait for the parameters of these sub-groups; here they are up to date."""

    def finish(self) -> None:
        """Wait until all parameters and state are where they live."""
        self.device.synchronize()

    def close(self) -> None:
        """End what runs in the background."""


class Zero3OffloadAsyncGrads(Zero3Offload):
    """The same with gradients converted on the GPU and copied to pinned memory while backward goes on."""

    scheduler = "zero3_offload_async_grads"
    measured: ClassVar[dict[str, dict[str, Any]]] = {"": {}, "_cpu_ratio0.5": {"cpu_ratio": 0.5}}

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep a gradient for the update, without stopping the host thread."""
        group.gradient[place].copy_(gradient.float(), non_blocking=True)
