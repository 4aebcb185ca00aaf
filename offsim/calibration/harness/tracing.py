"""Kineto traces of training iterations."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .device import Device
from .iterations import Iterations

TRACED_ITERATIONS = 2


def trace(iterations: Iterations, device: Device, path: Path) -> None:
    """Write a Kineto trace of a few iterations."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.cuda else [])]
    options: dict[str, Any] = {}
    with suppress(TypeError):  # the background thread too; older versions do not know how
        options["experimental_config"] = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, **options) as profiler:
        for index in range(TRACED_ITERATIONS):
            with record_function(f"iteration {index}"):
                iterations.run()
        device.synchronize()
    part = path.with_name(f"part-{path.name}")  # the ending decides whether it is compressed
    profiler.export_chrome_trace(str(part))
    part.replace(path)
