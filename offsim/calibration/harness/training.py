"""Training under one schedule: checked, measured and recorded in a Kineto trace."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .deep_optimizer_states import DeepOptimizerStates
from .device import Device
from .iterations import Iterations
from .model import Shape, Transformer, choose_shape
from .reference import TOLERANCE, check
from .zero3_offload import Zero3Offload, Zero3OffloadAsyncGrads


class Schedule(NamedTuple):
    """A schedule and its options, named as offsim names them; `name` is that of its trace and of its row."""

    optimizer: type[Zero3Offload]
    name: str
    options: dict[str, Any]


SCHEDULES = [
    Schedule(optimizer, optimizer.scheduler + variant, options)
    for optimizer in (Zero3Offload, Zero3OffloadAsyncGrads, DeepOptimizerStates)
    for variant, options in optimizer.measured.items()
]


TRACED_ITERATIONS = 2


@dataclass(frozen=True)
class Plan:
    """What is trained, and how long one schedule is measured."""

    shape: Shape
    subgroup_size: int
    bucket_elements: int
    seconds: float
    fewest: int
    most: int


def choose_plan(parameters: float, cuda: bool, quick: bool) -> Plan:
    """Return the plan for a model of about so many parameters."""
    sequence = 64 if quick else 2048 if cuda else 256
    shape = choose_shape(parameters, sequence)
    # About 20 sub-groups, since the longest stride is 8; DeepSpeed's defaults from 2e9 and 1e9 parameters on
    subgroup_size = min(100_000_000, shape.parameters // 20)
    bucket_elements = min(500_000_000, shape.parameters // 2)
    return Plan(shape, subgroup_size, bucket_elements, *((0.0, 3, 3) if quick else (15.0, 3, 8)))


def train(schedule: Schedule, plan: Plan, device: Device, threads: int, traces: Path) -> dict[str, Any]:
    """Check a schedule, measure and trace it; return its row of `training.csv`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Transformer(plan.shape, device.torch)
    optimizer = schedule.optimizer(model, device, schedule.options, plan.subgroup_size, plan.bucket_elements)
    try:
        iterations = Iterations(model, optimizer, device, plan.shape)
        difference, seconds = check(iterations, optimizer, device)
        iterations.run()  # the memory of the reference is given back: allocate anew before it counts
        device.synchronize()
        iterations.marks.clear()
        for _ in range(max(plan.fewest, min(plan.most, int(plan.seconds / seconds)))):
            iterations.run()
        device.synchronize()
        measured = iterations.times() | iterations.memory_columns()
        trace(iterations, device, traces / f"{schedule.name}.json.gz")
        optimizer.finish()
    finally:
        optimizer.close()
    checked = {"parameter_difference": difference, "parameter_tolerance": TOLERANCE}
    return _configuration(schedule, plan, device, threads, optimizer) | measured | checked


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


def _configuration(
    schedule: Schedule, plan: Plan, device: Device, threads: int, optimizer: Zero3Offload
) -> dict[str, Any]:
    """Return the configuration's columns, named as in tables of measured runs."""
    shape = plan.shape
    name = torch.cuda.get_device_name() if device.cuda else "cpu only"
    return {
        "hardware": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), "schedule": schedule.name,
        "model": f"{shape.parameters / 1e9:.3g}B", "layers": shape.layers, "hidden": shape.hidden,
        "ffn_hidden": shape.ffn_hidden, "heads": shape.heads, "kv_heads": shape.heads, "seq": shape.sequence,
        "vocab": shape.vocab, "swiglu": True, "untied": True, "checkpointing": True, "flash_attn": True,
        "params_per_tp_rank": shape.parameters, "tp": 1, "dp": 1, "micro_batch": 1, "global_batch": 1,
        "subgroup_size": plan.subgroup_size, "subgroups": len(optimizer.subgroups),
        "largest_subgroup": max(group.elements for group in optimizer.subgroups),
        "bucket_elements": plan.bucket_elements, "scheduler": optimizer.scheduler, "threads": threads,
        **dict.fromkeys(column for known in SCHEDULES for column in known.optimizer.columns), **optimizer.cells,
    }  # fmt: skip
