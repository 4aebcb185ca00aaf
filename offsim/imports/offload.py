"""DeepSpeed's sections offload_optimizer and offload_param become a scheduler, its options and a placement."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.imports import deepspeed_keys as keys
from offsim.imports.draft import Draft
from offsim.imports.keys import Section, option_keys
from offsim.programs.options import declared
from offsim.programs.schedule import TrainingSchedule
from offsim.schedulers.registry import BUILT_IN

TIERS = {"none": "gpu", "cpu": "host", "nvme": "nvme"}
"""DeepSpeed's device -> the tier of a scenario's placement, nearest first."""

_WHERE = {"none": "optimizer and parameters on the GPUs", "cpu": "{} in host memory", "nvme": "{} on NVMe"}
_DEVICE = "zero_optimization.offload_optimizer.device"


@dataclass(frozen=True)
class Offload:
    """What one section offloads, parameters or the optimizer, and the key that says where to."""

    kind: str
    section: Section
    device: str
    source: tuple[Section, str]


def take_offload(zero: Section, draft: Draft, stage: int) -> tuple[type[TrainingSchedule], tuple[str, str]]:
    """Choose scheduler, options and placement; return the scheduler and the devices of optimizer and parameters.

    It is the first one made for the ZeRO stage whose keys of DeepSpeed name the farthest device, and which has what is
    switched on besides: super_offload, the section zenflow.
    """
    optimizer, parameters = (_offload(zero, draft, kind, stage) for kind in keys.OFFLOADED)
    farthest = max(optimizer, parameters, key=lambda offload: [*TIERS].index(offload.device))
    scheduler = _scheduler(zero, stage, farthest.device)
    why = _WHERE[farthest.device].format(farthest.kind)
    if farthest.section.given("device") not in (None, farthest.device):
        why = f"DeepSpeed treats {farthest.section.given('device')} as {farthest.device} in stages 1 and 2"
    draft.take(*farthest.source, "scheduler.name", scheduler.name, why)
    for offload, default in ((optimizer, scheduler.optimizer_home), (parameters, "gpu")):
        tier = TIERS[offload.device]
        if tier != default:
            draft.take(*offload.source, f"placement.{offload.kind}", tier)
        elif offload is not farthest:
            draft.ignore_all(offload.source[0], {offload.source[1]: "off"})
    for offload in (optimizer, parameters):
        _take_keys(offload, draft, scheduler if offload.device == farthest.device else None)
    _take_zenflow(zero, draft, scheduler)
    return scheduler, (optimizer.device, parameters.device)


def _scheduler(zero: Section, stage: int, device: str) -> type[TrainingSchedule]:
    optimizer, switch, zenflow = zero.section(keys.OFFLOADED["optimizer"][0]), keys.SUPER_OFFLOAD, keys.ZENFLOW
    wanted = (stage == 3 and bool(optimizer.flag(switch)), zero.given(zenflow) is not None)
    for cls in BUILT_IN.values():
        said, options = cls.deepspeed or {}, declared(cls.Options)
        has = (bool(said.get(optimizer.name(switch))), bool(option_keys(zero.at(zenflow), options)))
        if stage in cls.stages and said.get(_DEVICE) == device and has == wanted:
            return cls
    section, key = (optimizer, switch) if wanted[0] else (zero, zenflow)
    if all(wanted):
        raise section.unexpected(key, f"false, as {zenflow} is on")
    raise section.unexpected(key, f"{'false' if wanted[0] else 'no such section'}, or {_DEVICE} cpu beside it")


def _offload(zero: Section, draft: Draft, kind: str, stage: int) -> Offload:
    """Read one section, or the older flag in its place; the device is the one that this ZeRO stage uses."""
    name, old = keys.OFFLOADED[kind]
    section = zero.section(name, ("device", *keys.IGNORED_OFFLOAD[name]))
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


def _take_keys(offload: Offload, draft: Draft, scheduler: type[TrainingSchedule] | None) -> None:
    """Take the keys of a section that say the scheduler's options, and list the others."""
    section, device, ignored = offload.section, offload.device, keys.IGNORED_OFFLOAD[keys.OFFLOADED[offload.kind][0]]
    if device == "none":
        what = "the optimizer is" if offload.kind == "optimizer" else "parameters are"
        draft.ignore_all(section, dict.fromkeys(section.values, f"{what} on the GPUs"))
        return
    said = option_keys(section.path, declared(scheduler.Options) if scheduler else [])
    if device == "nvme":
        said = {key: option for key, option in said.items() if key not in ignored}
    if offload.kind == "optimizer":
        ratio, pinned = section.number("ratio", 0, 1), section.flag("pin_memory")
        if ratio not in (None, 1) and "ratio" not in said:
            expected = "1: a part of the optimizer on the GPU needs stage 3 without NVMe and ZenFlow"
            raise section.unexpected("ratio", expected)
        if scheduler and (scheduler.deepspeed or {}).get(section.name(keys.SUPER_OFFLOAD)):
            draft.use(section, keys.SUPER_OFFLOAD, "updates of a process of its own, beside backward")
            ignored = ignored | {"pin_memory": "gradients are in shared memory, which is pageable either way"}
        elif device == "cpu" and "pin_memory" not in said:
            account = draft.leave if pinned is False else draft.use
            account(section, "pin_memory", "gradients copied to pinned memory")
    draft.take_options(section, said)
    draft.ignore_all(section, dict.fromkeys(option_keys(section.path), "of offload to NVMe") | ignored)


def _take_zenflow(zero: Section, draft: Draft, scheduler: type[TrainingSchedule]) -> None:
    """Take the section zenflow, which says options; what selects columns is left out."""
    said = option_keys(zero.at(keys.ZENFLOW), declared(scheduler.Options))
    if not said:
        return
    section = zero.section(keys.ZENFLOW, (*keys.IGNORED_ZENFLOW, *keys.ONLY_ZENFLOW))
    draft.use(zero, keys.ZENFLOW, "selected columns are updated on the GPU")
    draft.take_options(section, said)
    draft.take_only(section, keys.ONLY_ZENFLOW)
    strategy = section.word("select_strategy", ("auto", "step", "epoch"))
    if strategy == "step":
        draft.leave(section, "select_strategy", "columns that stay selected")
        if "select_interval" in section:
            draft.leave(section, "select_interval", "columns that stay selected")
    draft.ignore_all(section, keys.IGNORED_ZENFLOW)
