"""The check of a schedule: its parameters must be those of plain AdamW."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from .adam import OPTIONS
from .device import BF16, FP32, Device
from .iterations import Iterations
from .zero3_offload import LOSS_SCALE, Zero3Offload

TOLERANCE = 1e-6
"""Largest difference of a parameter: rounding. A gradient missed or used twice makes about 1e-3."""
CHECKED_ITERATIONS = 2


class Mismatch(Exception):
    """A schedule does not compute what plain AdamW computes."""


class PlainAdamW:
    """AdamW on fp32 master weights, with the bf16 gradients that a schedule's backward has made."""

    def __init__(self, optimizer: Zero3Offload, device: torch.device) -> None:
        self.masters = {
            parameter: nn.Parameter(parameter.detach().to(device, FP32, copy=True)) for parameter in optimizer.where
        }
        options: dict[str, Any] = {name: OPTIONS[name] for name in ("lr", "weight_decay", "eps")}
        betas = (OPTIONS["beta1"], OPTIONS["beta2"])
        self.adam = torch.optim.AdamW(self.masters.values(), betas=betas, foreach=False, fused=False, **options)

    def watch(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Take a gradient from backward."""
        master = self.masters[parameter]
        master.grad = gradient.to(master.device, FP32, copy=True) / LOSS_SCALE

    def difference(self, optimizer: Zero3Offload) -> float:
        """Largest difference of a master parameter; infinite where the bf16 parameters are not the rounded masters."""
        found = 0.0
        for group in optimizer.subgroups:
            if not torch.equal(group.bf16, group.master.to(group.bf16.device, BF16)):
                return math.inf
            masters = torch.cat([self.masters[parameter].detach().flatten() for parameter in group.members])
            difference = (masters - group.master.to(masters.device)).abs().max().item()
            if math.isnan(difference):
                return math.inf
            found = max(found, difference)
        return found


def check(iterations: Iterations, optimizer: Zero3Offload, device: Device) -> tuple[float, float]:
    """Train the reference along with the model; return the largest difference, and the seconds of an iteration."""
    on_gpu = device.cuda and device.free_bytes() > 20 * iterations.shape.parameters + 8e9
    reference = PlainAdamW(optimizer, device.torch if on_gpu else torch.device("cpu"))
    optimizer.watch = reference.watch
    seconds = 0.0
    for _ in range(CHECKED_ITERATIONS):
        start = time.perf_counter()
        iterations.run()
        device.synchronize()
        seconds = time.perf_counter() - start
        reference.adam.step()
    optimizer.finish()
    optimizer.watch = None
    difference = reference.difference(optimizer)
    del reference
    device.release()
    if not difference <= TOLERANCE:
        raise Mismatch(f"a parameter differs from plain AdamW by {difference:.3g}, tolerance {TOLERANCE:g}")
    return difference, seconds
