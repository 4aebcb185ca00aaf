"""Fused AdamW, as microbenchmarks time it and schedules use it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from .device import FP32

OPTIONS: dict[str, Any] = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "eps": 1e-8}


def fused_adam(master: Tensor, gradient: Tensor, momentum: Tensor, variance: Tensor, step: int) -> None:
    """One step, on the device that holds the tensors."""
    steps = [torch.full((), float(step - 1), dtype=FP32, device=master.device)]
    _adamw(master, gradient, momentum, variance, steps, fused=True)


def foreach_adam(master: Tensor, gradient: Tensor, momentum: Tensor, variance: Tensor, step: Tensor) -> None:
    """The same, not fused; it counts `step` up."""
    _adamw(master, gradient, momentum, variance, [step], foreach=True)


def _adamw(
    master: Tensor, gradient: Tensor, momentum: Tensor, variance: Tensor, steps: list[Tensor], **how: Any
) -> None:
    adamw([master], [gradient], [momentum], [variance], [], steps, amsgrad=False, maximize=False, **how, **OPTIONS)
