"""Keys of accelerate's configuration of PyTorch FSDP by what they mean to a simulated iteration.

Names and defaults are those of accelerate 1.15 (commands/config/config_args.py, commands/launch.py,
utils/dataclasses.py).
"""

from __future__ import annotations

RESHARD = "reshard_after_forward"
"""A strategy in FSDP1, a flag in FSDP2."""

_LAUNCHER = "the launcher's"
_TPU = "of TPUs"
_CHECKPOINTS = "checkpoints to disk are between iterations"
_INITIALIZATION = "initialization"

IGNORED: dict[str, str] = {
    **dict.fromkeys(("compute_environment", "machine_rank", "main_process_ip", "main_process_port"), _LAUNCHER),
    **dict.fromkeys(("rdzv_backend", "same_network", "main_training_function", "gpu_ids", "mpirun_config"), _LAUNCHER),
    **dict.fromkeys(("command_file", "commands", "debug", "fsdp_config"), _LAUNCHER),
    **dict.fromkeys(("downcast_bf16", "tpu_name", "tpu_zone", "tpu_vm", "tpu_env"), _TPU),
    **dict.fromkeys(("tpu_use_cluster", "tpu_use_sudo"), _TPU),
    "enable_cpu_affinity": "the profile says how its processes are bound",
}

REFUSED: dict[str, str] = {
    "deepspeed_config": "DeepSpeed beside FSDP",
    "megatron_lm_config": "Megatron-LM beside FSDP",
    "fp8_config": "fp8 training",
    "parallelism_config": "a mesh of several kinds of parallelism",
}
"""Sections that change what an iteration does, once there is anything in them."""

IGNORED_FSDP: dict[str, str] = {
    "state_dict_type": _CHECKPOINTS,
    "cpu_ram_efficient_loading": _INITIALIZATION,
    "sync_module_states": _INITIALIZATION,
    "param_init_fn": _INITIALIZATION,
    "use_orig_params": "another view of the same parameters",
    "transformer_layer_cls_to_wrap": "the model's layers",
    "transformer_cls_names_to_wrap": "the model's layers",
    "min_num_params": "of SIZE_BASED_WRAP",
    "activation_checkpointing_offload": "off",
}


WRAP, NO_WRAP = "TRANSFORMER_BASED_WRAP", "NO_WRAP"
WRAPS = (WRAP, "SIZE_BASED_WRAP", NO_WRAP)
PREFETCHES = ("BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH")
"""The first is simulated; the next are another schedule of the same work."""

LAYERS_AHEAD = "one layer is gathered ahead, as far as the host thread runs ahead of the GPU"

STRATEGIES = {
    "FULL_SHARD": 3,
    "SHARD_GRAD_OP": 2,
    "NO_SHARD": 0,
    "HYBRID_SHARD": 3,
    "HYBRID_SHARD_ZERO2": 2,
}
"""Sharding strategies in PyTorch's order, and the ZeRO stage of the same traffic where nothing is offloaded."""
WITHIN_NODES = {"HYBRID_SHARD": "FULL_SHARD", "HYBRID_SHARD_ZERO2": "SHARD_GRAD_OP"}
"""Strategies that shard within a node -> what they are on one node."""

PLUGIN = (
    *("version", "offload_params", "cpu_offload", "sharding_strategy", RESHARD, "auto_wrap_policy"),
    *("activation_checkpointing", "forward_prefetch", "limit_all_gathers", "ignored_modules", "mixed_precision_policy"),
    *("backward_prefetch", *IGNORED_FSDP),
)
TOP = (
    *("distributed_type", "mixed_precision", "num_processes", "num_machines", "use_cpu", "dynamo_config"),
    *(*IGNORED, *REFUSED),
)
