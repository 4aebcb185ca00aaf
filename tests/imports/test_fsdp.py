"""PyTorch FSDP: accelerate's configuration and TrainingArguments; what is taken, what is listed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from offsim.imports import fsdp_keys as keys
from offsim.imports.draft import Draft
from offsim.imports.fsdp import read_accelerate
from offsim.imports.read import Imported, import_scenario
from offsim.imports.trainer import NOTHING
from offsim.inputs.document import document_from
from offsim.inputs.errors import InputError
from offsim.results.simulate import simulate
from tests.imports.files import ACCELERATE, ARGUMENTS, DS_CONFIG, LLAMA_2_7B, changed, write
from tests.inputs.messages import message_of

FSDP2 = changed(
    ACCELERATE,
    fsdp_config={
        "fsdp_version": 2,
        "fsdp_activation_checkpointing": True,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_offload_params": True,
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    },
)
MODEL = {"layers": 2, "hidden": 64, "ffn_hidden": 128, "heads": 4, "kv_heads": 2, "swiglu": True}


def read(config: dict[str, Any], gpus: int = 4) -> Draft:
    draft = Draft({"model": dict(MODEL)})
    read_accelerate(document_from(config), draft, NOTHING, gpus=gpus, gpus_per_node=4)
    return draft


def listed(draft: Draft) -> list[str]:
    return [entry.key for entries in draft.lists.values() for entry in entries]


@pytest.mark.parametrize("config", [ACCELERATE, FSDP2])
def test_every_key_is_in_a_list(config: dict[str, Any]) -> None:
    draft = read(config)
    names = set(config) - {"num_processes"} | {f"fsdp_config.{key}" for key in config["fsdp_config"]}
    assert names <= set(listed(draft))
    assert not draft.not_modelled


@pytest.mark.parametrize(
    ("config", "changes", "version", "resharded"),
    [
        (ACCELERATE, {}, "fsdp1", True),
        (ACCELERATE, {"sharding_strategy": "SHARD_GRAD_OP"}, "fsdp1", False),
        (ACCELERATE, {"sharding_strategy": 2}, "fsdp1", False),
        (ACCELERATE, {"sharding_strategy": "1"}, "fsdp1", True),
        (ACCELERATE, {"sharding_strategy": "HYBRID_SHARD"}, "fsdp1", True),
        (ACCELERATE, {"sharding_strategy": ...}, "fsdp1", True),
        (ACCELERATE, {"sharding_strategy": ..., "reshard_after_forward": "shard_grad_op"}, "fsdp1", False),
        (FSDP2, {}, "fsdp2", True),
        (FSDP2, {"reshard_after_forward": False}, "fsdp2", False),
        (FSDP2, {"reshard_after_forward": "false"}, "fsdp2", False),
    ],
)
def test_version_and_strategy_with_offload(
    config: dict[str, Any], changes: dict[str, Any], version: str, resharded: bool
) -> None:
    draft = read(changed(config, **{f"fsdp_config__fsdp_{key}": value for key, value in changes.items()}))
    options = {"version": version, "reshard_after_forward": resharded, "fused": False}
    assert draft.data["scheduler"] == {"name": "fsdp_offload", **options}
    assert draft.data["training"]["zero_stage"] == 3


@pytest.mark.parametrize(("strategy", "stage"), list(keys.STRATEGIES.items()))
def test_without_offload_the_strategy_is_a_zero_stage(strategy: str, stage: int) -> None:
    changes = {"fsdp_config__fsdp_offload_params": False, "fsdp_config__fsdp_sharding_strategy": strategy}
    draft = read(changed(ACCELERATE, **changes))
    assert draft.data["scheduler"] == {"name": "no_offload"}
    assert draft.data["training"]["zero_stage"] == stage
    # 64 x 64 for queries and the output, half of it for keys and values, three of 64 x 128
    assert draft.data["training"]["reduce_bucket_size"] == 3 * 64 * 64 + 3 * 64 * 128


def test_batch_sizes_are_assumed_without_training_arguments() -> None:
    draft = read(ACCELERATE)
    assert (draft.data["training"]["micro_batch"], draft.data["training"]["global_batch"]) == (8, 32)
    assumed = {entry.key for entry in draft.assumed}
    assert {"per_device_train_batch_size", "gradient_accumulation_steps", "optim"} <= assumed


def test_checkpoints_in_host_memory() -> None:
    draft = read(changed(FSDP2, fsdp_config__fsdp_activation_checkpointing_offload=True))
    assert draft.data["placement"] == {"activations": {"tier": "host"}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"fsdp_config__fsdp_backward_prefetch": "NO_PREFETCH"}, "fsdp_config.fsdp_backward_prefetch"),
        ({"fsdp_config__fsdp_backward_prefetch": ...}, "fsdp_config.fsdp_backward_prefetch"),
        ({"fsdp_config__fsdp_auto_wrap_policy": "SIZE_BASED_WRAP"}, "fsdp_config.fsdp_auto_wrap_policy"),
        ({"fsdp_config__fsdp_auto_wrap_policy": ...}, "fsdp_config.fsdp_auto_wrap_policy"),
        ({"fsdp_config__fsdp_ignored_modules": "lm_head"}, "fsdp_config.fsdp_ignored_modules"),
        ({"dynamo_config": {"dynamo_backend": "INDUCTOR"}}, "dynamo_config"),
        ({"num_machines": 2}, "num_machines"),
    ],
)
def test_what_is_simulated_in_another_way_is_listed(changes: dict[str, Any], key: str) -> None:
    assert [entry.key for entry in read(changed(ACCELERATE, **changes)).not_modelled] == [key]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distributed_type": "DEEPSPEED"}, "distributed_type: found 'DEEPSPEED', expected FSDP; the file that deepsp"),
        ({"distributed_type": "MULTI_GPU"}, "distributed_type: found 'MULTI_GPU', expected FSDP"),
        ({"mixed_precision": "no"}, "mixed_precision: found 'no', expected bf16 or fp16: fp32 training cannot be"),
        ({"mixed_precision": "fp8"}, "mixed_precision: fp8 training cannot be simulated"),
        ({"mixed_precision": "bf61"}, "mixed_precision: found 'bf61', expected one of .*; did you mean 'bf16'?"),
        ({"megatron_lm_config": {"a": 1}}, "megatron_lm_config: Megatron-LM beside FSDP cannot be simulated"),
        ({"use_cpu": True}, "use_cpu: found true, expected false"),
        ({"num_proceses": 4}, "unknown key 'num_proceses'; did you mean 'num_processes'?"),
        ({"fsdp_config": True}, "fsdp_config: found true, expected a section of keys"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message.replace('?', '[?]')}"):
        read(changed(ACCELERATE, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ofload_params": True},
            "unknown key 'fsdp_ofload_params' in fsdp_config; did you mean 'fsdp_offload_params'?",
        ),
        ({"offload_params": "yes"}, "fsdp_config.fsdp_offload_params: found 'yes', expected true or f"),
        ({"version": 3}, "fsdp_config.fsdp_version: found 3, expected at most 2"),
        ({"sharding_strategy": "NO_SHARD"}, "fsdp_config.fsdp_sharding_strategy: found 'NO_SHARD', .*: offload of"),
        ({"sharding_strategy": "FULL_SHRAD"}, "fsdp_config.fsdp_sharding_strategy: .*; did you mean 'FULL_SHARD'?"),
        ({"sharding_strategy": 6}, "fsdp_config.fsdp_sharding_strategy: found 6, expected one of .*, or 1 to 5"),
        ({"auto_wrap_policy": "NO_WRAP"}, "fsdp_config.fsdp_auto_wrap_policy: found 'NO_WRAP', .*: one unit for the"),
        (
            {"activation_checkpointing": False, "activation_checkpointing_offload": True},
            "fsdp_config.fsdp_activation_checkpointing_offload: found true, expected false where",
        ),
    ],
)
def test_what_is_refused_of_the_plugin(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message.replace('?', '[?]')}"):
        read(changed(ACCELERATE, **{f"fsdp_config__fsdp_{key}": value for key, value in changes.items()}))


def test_copies_on_several_nodes_are_refused() -> None:
    with pytest.raises(InputError, match="found 'HYBRID_SHARD', expected FULL_SHARD: copies of the model on 2 nodes"):
        read(changed(ACCELERATE, fsdp_config__fsdp_sharding_strategy="HYBRID_SHARD"), gpus=8)


# From files

SMALL = changed(LLAMA_2_7B, num_hidden_layers=2)


def made(folder: Path, arguments: dict[str, Any] | None = None, **options: Any) -> Imported:
    _, model = write(folder, model=SMALL)
    if arguments is not None:
        options["trainer"] = folder / "args.json"
        options["trainer"].write_text(json.dumps(arguments, indent=1))
    return import_scenario(model=model, hardware="jlse-4xh100", **options)


def test_the_gpus_are_the_processes(tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(yaml.safe_dump(changed(ACCELERATE, num_processes=2)))
    scenario = made(tmp_path, fsdp=file).scenario
    assert scenario.training.data_parallel == 2
    assert simulate(scenario).iteration_s > 0
    with pytest.raises(InputError, match=r"accelerate.yaml:\d+: num_processes: found 2, expected 4, as --gpus"):
        made(tmp_path, fsdp=file, gpus=4)
    file.write_text(yaml.safe_dump(changed(ACCELERATE, num_processes=...)))
    assert made(tmp_path, fsdp=file, gpus=3).scenario.training.data_parallel == 3


def test_training_arguments_give_batch_sizes_and_lengths(tmp_path: Path) -> None:
    file = tmp_path / "accelerate.yaml"
    file.write_text(
        yaml.safe_dump(changed(ACCELERATE, mixed_precision="no", fsdp_config__fsdp_activation_checkpointing=...))
    )
    imported = made(tmp_path, changed(ARGUMENTS, optim="adamw_torch"), fsdp=file)
    training = imported.scenario.training
    assert (training.micro_batch, training.micro_steps, training.activation_checkpointing) == (2, 3, True)
    assert imported.scenario.model.sequence == 512
    assert imported.scenario.scheduler.options["fused"] is False
    assert {*ARGUMENTS, "optim", "max_grad_norm"} <= set(imported.account["key"])


@pytest.mark.parametrize(
    ("arguments", "scheduler", "stage"),
    [
        ({"fsdp": "full_shard auto_wrap offload"}, "fsdp_offload", 3),
        ({"fsdp": "shard_grad_op"}, "no_offload", 2),
        ({"fsdp": True, "fsdp_config": {"cpu_offload": True}}, "fsdp_offload", 3),
        ({"fsdp": ["hybrid_shard", "offload"], "fsdp_config": {"version": 1}}, "fsdp_offload", 3),
        ({"deepspeed": "ds_config.json"}, "zero3_offload", 3),
        ({"deepspeed": changed(DS_CONFIG, zero_optimization={"stage": 2})}, "no_offload", 2),
    ],
)
def test_training_arguments_name_a_configuration(
    tmp_path: Path, arguments: dict[str, Any], scheduler: str, stage: int
) -> None:
    sizes = {} if "fsdp" in arguments else {"gradient_accumulation_steps": 2}  # as in ds_config.json
    imported = made(tmp_path, ARGUMENTS | sizes | arguments)
    assert (imported.scenario.scheduler.name, imported.scenario.training.zero_stage) == (scheduler, stage)
    assert set(arguments) <= set(imported.account["key"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "args.json:1: names no configuration of DeepSpeed or FSDP"),
        ({"deepspeed": "missing.json"}, "missing.json: no such file"),
        ({"deepspeed": 3}, "args.json:9: deepspeed: found 3, expected a file's path or a section of keys"),
        ({"deepspeed": "ds_config.json"}, "ds_config.json:4: gradient_accumulation_steps: found 2, expected 3, as"),
        (
            {"deepspeed": changed(DS_CONFIG, bf16__enabled="auto"), "gradient_accumulation_steps": 2, "bf16": False},
            "bf16: found false, expected true, or fp16, which DeepSpeed's bf16.enabled leaves to it",
        ),
        ({"fsdp": "hybrid_shard"}, "fsdp: found 'hybrid_shard', expected full_shard or shard_grad_op, offload and"),
        ({"fsdp": True, "bf16": False}, "bf16: found false, expected true, or fp16: fp32 training cannot be simulated"),
        ({"fsdp": "offload", "fsdp_config": {"versoin": 2}}, "unknown key 'versoin' in fsdp_config; did you mean"),
        ({"fsdp": "offload", "optim": "adafactor"}, "optim: found 'adafactor', expected adamw_torch or adamw_torch_fu"),
        ({"fsdp": "offload", "auto_find_batch_size": True}, "auto_find_batch_size: a batch size chosen at run time"),
        ({"fsdp": "offload", "gradient_accumulation_steps": 0}, "accumulation_steps: found 0, expected at least 1"),
    ],
)
def test_training_arguments_that_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    assert message in message_of(lambda: made(tmp_path, ARGUMENTS | arguments))


def test_a_slip_in_a_size_is_refused(tmp_path: Path) -> None:
    arguments = changed(ARGUMENTS, per_device_train_batch_size=..., per_device_train_batchsize=2, fsdp="offload")
    with pytest.raises(InputError, match="unknown key 'per_device_train_batchsize'; did you mean 'per_device_train_"):
        made(tmp_path, arguments)
