"""DeepSpeed's sections offload_optimizer and offload_param become a scheduler, its options and a placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offsim.imports import deepspeed_keys as keys
from offsim.imports.draft import Draft
from offsim.imports.keys import Section
from offsim.schedulers.registry import find_scheduler

TIERS = {"none": "gpu", "cpu": "host", "nvme": "nvme"}
"""DeepSpeed's device -> the tier of a scenario's placement, nearest first."""

NO_OFFLOAD, ZERO_INFINITY = "no_offload", "zero_infinity"
ZERO3_OFFLOAD = "zero3_offload"
TO_HOST = {1: "zero1_offload", 2: "zero2_offload", 3: ZERO3_OFFLOAD}
"""ZeRO stage -> the scheduler with the optimizer in host memory."""


@dataclass(frozen=True)
class Offload:
    """What one section offloads, parameters or the optimizer, and the key that says where to."""

    kind: str
    section: Section
    device: str
    source: tuple[Section, str]


def take_offload(zero: Section, draft: Draft, stage: int) -> tuple[str, str]:
    """Choose scheduler, options and placement; return the devices that have the optimizer and the parameters."""
    optimizer, parameters = (_offload(zero, draft, kind, stage) for kind in keys.OFFLOADED)
    farthest = max(optimizer, parameters, key=lambda offload: [*TIERS].index(offload.device))
    if farthest.device == "none":
        scheduler, why = NO_OFFLOAD, "optimizer and parameters on the GPUs"
    elif farthest.device == "nvme":
        scheduler, why = ZERO_INFINITY, f"{farthest.kind} on NVMe"
    else:
        scheduler, why = TO_HOST[stage], f"{farthest.kind} in host memory"
    if farthest.section.given("device") not in (None, farthest.device):
        why = f"DeepSpeed treats {farthest.section.given('device')} as {farthest.device} in stages 1 and 2"
    draft.take(*farthest.source, "scheduler.name", scheduler, why)
    for offload, default in ((optimizer, find_scheduler(scheduler).optimizer_home), (parameters, "gpu")):
        tier = TIERS[offload.device]
        if tier != default:
            draft.take(*offload.source, f"placement.{offload.kind}", tier)
        elif offload is not farthest:
            draft.ignore_all(offload.source[0], {offload.source[1]: "off"})
    _take_optimizer(optimizer, draft, scheduler)
    _take_parameters(parameters, draft)
    return optimizer.device, parameters.device


def _offload(zero: Section, draft: Draft, kind: str, stage: int) -> Offload:
    """Read one section, or the older flag in its place; the device is the one that this ZeRO stage uses."""
    name, old = keys.OFFLOADED[kind]
    section = zero.section(name, keys.OFFLOAD[name])
    source = (section, "device") if section.values else (zero, name)
    device = section.word("device", tuple(TIERS)) or "none"
    if zero.flag(old):
        if section.values:
            raise zero.unexpected(old, f"{name} alone, which replaces it")
        source, device = (zero, old), "cpu"
    else:
        draft.ignore_all(zero, {old: "off"})
    if stage < 3 and device != "none":
        if kind == "parameters":
            draft.ignore(*source, "DeepSpeed offloads parameters in ZeRO stage 3 only")
            device = "none"
        elif stage == 0:
            raise source[0].unexpected(source[1], "none, or ZeRO stage 1, 2 or 3")
        else:
            device = "cpu"
    return Offload(kind, section, device, source)


def _take_optimizer(optimizer: Offload, draft: Draft, scheduler: str) -> None:
    section, device = optimizer.section, optimizer.device
    if device == "none":
        draft.ignore_all(section, dict.fromkeys(section.values, "the optimizer is on the GPUs"))
        return
    if section.flag("super_offload"):
        raise section.refused("super_offload", "SuperOffload")
    ratio = section.number("ratio", 0, 1)
    pinned = section.flag("pin_memory")
    if scheduler == ZERO3_OFFLOAD:
        draft.take_or_default(section, "ratio", "scheduler.cpu_ratio", None if ratio is None else float(ratio), 1.0)
        flush = "blocking" if pinned is False else "asynchronous"
        why = "to pageable memory" if pinned is False else "to pinned memory, since 0.19.5; --set for older builds"
        draft.take(section, "pin_memory", "scheduler.gradient_flush", flush, why)
    elif ratio not in (None, 1):
        raise section.unexpected("ratio", "1: a part of the optimizer on the GPU needs ZeRO stage 3 without NVMe")
    elif device == "cpu" and pinned is False:
        draft.leave(section, "pin_memory", "gradients copied to pinned memory")
    elif device == "cpu":
        draft.use(section, "pin_memory", "gradients copied to pinned memory")
    _take_nvme_options(section, draft, keys.NVME_OPTIMIZER, device)
    draft.ignore_all(section, keys.IGNORED_OFFLOAD_OPTIMIZER)


def _take_parameters(parameters: Offload, draft: Draft) -> None:
    section = parameters.section
    if parameters.device == "none":
        draft.ignore_all(section, dict.fromkeys(section.values, "parameters are on the GPUs"))
        return
    _take_nvme_options(section, draft, keys.NVME_PARAMETERS, parameters.device)
    draft.ignore_all(section, keys.IGNORED_OFFLOAD_PARAM)


def _take_nvme_options(section: Section, draft: Draft, options: Mapping[str, keys.Option], device: str) -> None:
    if device != "nvme":
        draft.ignore_all(section, dict.fromkeys(options, "of offload to NVMe"))
        return
    for key, (name, default) in options.items():
        draft.take_or_default(section, key, f"scheduler.{name}", section.like(key, default), default)
