"""The other way: the keys of DeepSpeed's configuration that say what a scenario says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from offsim.imports.deepspeed_keys import OFFLOADED, OVERLAP
from offsim.imports.offload import TIERS
from offsim.platform.platform import GPU, HOST
from offsim.programs.training import BUCKET_ELEMENTS
from offsim.scenario import Scenario
from offsim.schedulers.base import OffloadSchedule
from offsim.schedulers.registry import scenario_scheduler

DEVICES = {tier: device for device, tier in TIERS.items()}
NVME_PATH = "/local_nvme"
NO_KEY = "no key of DeepSpeed says this placement of the {}"


@dataclass(frozen=True)
class Recommendation:
    """Keys to set in DeepSpeed's configuration, and what else has to be done, which no key says."""

    keys: dict[str, Any]
    notes: tuple[str, ...]
    nearest: bool = False
    """Whether DeepSpeed does not have the schedule: the keys choose the nearest that it has, not this one."""

    def to_json(self) -> str:
        """The keys as a part of ds_config.json."""
        return json.dumps(self.keys, indent=2) + "\n"


def recommendation(scenario: Scenario) -> Recommendation:
    """Say in DeepSpeed's words what to train with; `import_scenario` reads the same values back.

    A scheduler says its own keys in `deepspeed_keys(options)`, by their dotted path in ds_config.json, and what no key
    does in `deepspeed_notes(options)`. One without them gets, as the nearest, the keys of ZeRO-3 with the optimizer on
    the CPU.
    """
    training = scenario.training
    stage = training.zero_stage
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        zero["sub_group_size"] = training.subgroup_size
    zero |= {"reduce_bucket_size": training.reduce_bucket_size or BUCKET_ELEMENTS, OVERLAP: True}
    keys: dict[str, Any] = {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": training.micro_steps,
        "bf16": {"enabled": True},
        "zero_optimization": zero,
    }
    scheduler, options = scenario_scheduler(scenario)
    own, notes = scheduler.deepspeed_keys(options), list(scheduler.deepspeed_notes(options))
    nearest = own is None
    if own is None:
        own = OffloadSchedule.deepspeed or {}
        notes = [f"DeepSpeed does not have {scheduler.name}: the nearest that these keys choose is ZeRO-3 offload"]
    for path, value in own.items():
        *sections, key = path.split(".")
        section = keys
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    notes += _place(scenario, zero)
    if training.tensor_parallel > 1:
        notes.append(f"tensor parallelism of {training.tensor_parallel} is Megatron's --tensor-model-parallel-size")
    notes += _keep_activations(scenario, keys)
    return Recommendation(keys, tuple(notes), nearest)


def _place(scenario: Scenario, zero: dict[str, Any]) -> list[str]:
    """Set the devices that the scenario's placement says; return notes on what no key says."""
    notes = []
    for kind, (name, _) in OFFLOADED.items():
        placed = getattr(scenario.placement, kind)
        tier = placed[0].tier if isinstance(placed, list) and len(placed) == 1 else placed
        if isinstance(tier, str) and tier in DEVICES:
            zero.setdefault(name, {})["device"] = DEVICES[tier]
        elif tier is not None:
            notes.append(NO_KEY.format(kind))
        if zero.get(name, {}).get("device") == "nvme":
            zero[name].setdefault("nvme_path", NVME_PATH)
            notes.append(f"{name}.nvme_path has to be a folder on NVMe of the node")
    return notes


def _keep_activations(scenario: Scenario, keys: dict[str, Any]) -> list[str]:
    """Set the key that moves checkpoints to host memory; return notes on what no key says."""
    asked, layers = scenario.placement.activations, scenario.model.layers
    recomputed = asked.recomputed(layers) if scenario.training.activation_checkpointing else 0
    by = ""
    notes = []
    if asked.tier == HOST and recomputed == layers:
        keys["activation_checkpointing"] = {"cpu_checkpointing": True}
        by = ", by deepspeed.checkpointing"
    elif asked.tier != GPU or 0 < recomputed < layers:
        notes.append(NO_KEY.format("activations"))
    on_or_off = "on" if recomputed else "off"
    return [*notes, f"activation checkpointing has to be {on_or_off} in the model's code{by}: no key here does that"]
