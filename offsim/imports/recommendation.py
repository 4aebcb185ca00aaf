"""The other way: the keys of DeepSpeed's configuration that say what a scenario says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from offsim.imports.deepspeed import ASYNCHRONOUS, BLOCKING, RESIDENT
from offsim.programs.training import BUCKET_ELEMENTS
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler


@dataclass(frozen=True)
class Recommendation:
    """Keys to set in DeepSpeed's configuration, and what else has to be done, which no key says."""

    keys: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The keys as a part of ds_config.json."""
        return json.dumps(self.keys, indent=2) + "\n"


def recommendation(scenario: Scenario) -> Recommendation:
    """Say in DeepSpeed's words what to train with; `import_scenario` reads the same values back.

    A scheduler that DeepSpeed does not have gets the keys of the nearest that it has, and a note on the build to use.
    """
    training = scenario.training
    zero: dict[str, Any] = {
        "stage": 3,
        "sub_group_size": training.subgroup_size,
        "reduce_bucket_size": training.reduce_bucket_size or BUCKET_ELEMENTS,
        "overlap_comm": True,
    }
    offload, notes = _offload(scenario)
    zero["offload_optimizer"] = offload
    if training.tensor_parallel > 1:
        notes.append(f"tensor parallelism of {training.tensor_parallel} is Megatron's --tensor-model-parallel-size")
    on_or_off = "on" if training.activation_checkpointing else "off"
    notes.append(f"activation checkpointing has to be {on_or_off} in the model's code: no key here does that")
    keys = {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": training.micro_steps,
        "bf16": {"enabled": True},
        "zero_optimization": zero,
    }
    return Recommendation(keys, tuple(notes))


def _offload(scenario: Scenario) -> tuple[dict[str, Any], list[str]]:
    name = scenario.scheduler.name
    if name == RESIDENT:
        return {"device": "none"}, []
    _, options = scenario_scheduler(scenario)
    ratio = getattr(options, "cpu_ratio", 1.0)
    offload = {"device": "cpu", "pin_memory": name != BLOCKING, "ratio": ratio}
    if name == BLOCKING:
        return offload, ["for builds whose gradient copies block the host, pin_memory can be true as well"]
    if name == ASYNCHRONOUS:
        return offload, ["needs a build that copies gradients without blocking the host, as 0.19 does"]
    stock = f"stock DeepSpeed runs these keys as {ASYNCHRONOUS}"
    if name == "deep_optimizer_states":
        stride = getattr(options, "update_stride", None)
        note = (
            f"needs the build of DeepSpeed of Deep Optimizer States (doi 10.1145/3652892.3700781), with one "
            f"sub-group in {stride} updated on the GPU (update stride {stride}); {stock}"
        )
        return offload, [note]
    return offload, [f"needs a build with the scheduler {name}; {stock}"]
