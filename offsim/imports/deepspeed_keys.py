"""Keys of DeepSpeed's configuration by what they mean to a simulated iteration.

Names and defaults are those of DeepSpeed 0.19 (runtime/config.py, runtime/constants.py, runtime/zero/config.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

PROFILING = "reports and their synchronizations are not part of the prediction"
_OTHER_STAGES = "of ZeRO stages 1 and 2"
_CHECKPOINTS = "checkpoints to disk are between iterations"
_NUMBERS = "changes numbers, not their amount"

IGNORED: dict[str, str] = {
    "scheduler": "the learning rate's",
    "gradient_clipping": "the norm is part of every update, its factor part of the scaling",
    **dict.fromkeys(("prescale_gradients", "gradient_predivide_factor", "gradient_allreduce_op"), _NUMBERS),
    "zero_allow_untested_optimizer": "a check at the start",
    **dict.fromkeys(("steps_per_print", "dump_state", "log_level", "timers"), PROFILING),
    **dict.fromkeys(("wall_clock_breakdown", "memory_breakdown", "flops_profiler", "comms_logger"), PROFILING),
    **dict.fromkeys(("tensorboard", "wandb", "csv_monitor", "comet", "monitor_config"), PROFILING),
    **dict.fromkeys(("checkpoint", "nebula", "datastates_ckpt"), _CHECKPOINTS),
    "aio": "of the optimizer on NVMe",
    "dataloader_drop_last": "data loading is not modelled",
    "disable_python_gc": "garbage collection is not modelled",
    "eigenvalue": "of quantization schedules",
    "vocabulary_size": "a check at the start",
    "use_data_before_expert_parallelism": "of expert parallelism",
    "data_parallel_group": "the launcher's",
    "seq_parallel_communication_data_type": "of sequence parallelism",
}

IGNORED_ZERO: dict[str, str] = {
    **dict.fromkeys(("allgather_partitions", "allgather_bucket_size", "round_robin_gradients"), _OTHER_STAGES),
    **dict.fromkeys(("legacy_stage1", "use_multi_rank_bucket_allreduce", "compute_grad_norm"), _OTHER_STAGES),
    "parameter_alignment": _OTHER_STAGES,
    **dict.fromkeys(("load_from_fp32_weights", "elastic_checkpoint", "pipeline_loading_checkpoint"), _CHECKPOINTS),
    "stage3_gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "stage3_gather_fp16_weights_on_model_save": _CHECKPOINTS,
    "gather_16bit_weights_on_model_save": _CHECKPOINTS,
    "ignore_unused_parameters": "a check",
    "enable_sanity_checks": "a check",
    "log_trace_cache_warnings": PROFILING,
    "override_module_apply": "initialization",
    "memory_efficient_linear": "of frozen parameters",
    "leaf_module": "of mixtures of experts",
    "mics_hierarchical_params_gather": "of MiCS, which is off",
    "save_muon_momentum_buffer_in_memory": "of another optimizer",
}

IGNORED_OFFLOAD: dict[str, str] = dict.fromkeys(
    (
        "nvme_path",
        "buffer_count",
        "buffer_size",
        "max_in_cpu",
        "pipeline",
        "pipeline_read",
        "pipeline_write",
        "fast_init",
    ),
    "of offload to NVMe",
) | {"cpuadam_cores_perc": "of super_offload, which is off"}

IGNORED_CHECKPOINTING: dict[str, str] = {
    "partition_activations": "of tensor parallelism",
    "contiguous_memory_optimization": "fragmentation is not modelled",
    "number_checkpoints": "one for each layer",
    "synchronize_checkpoint_boundary": PROFILING,
    "profile": PROFILING,
}


class Only(NamedTuple):
    """The one value of a key that can be modelled, which is also DeepSpeed's default, and what others would be."""

    value: Any
    other: str


ONLY: dict[str, Only] = {
    "sparse_gradients": Only(False, "sparse gradients"),
    "disable_allgather": Only(False, "another exchange of parameters"),
    "managed_gradient_accumulation": Only(True, "accumulation steps that the program decides"),
    "sequence_parallel_size": Only(1, "sequence parallelism"),
    "zero_force_ds_cpu_optimizer": Only(True, "another CPU optimizer than DeepSpeedCPUAdam"),
    "fp32_allreduce": Only(False, "gradients reduced in fp32"),
}

ONLY_ZERO: dict[str, Only] = {
    "overlap_comm": Only(True, "gradients reduced on the compute stream"),
    "reduce_scatter": Only(True, "gradients all-reduced instead of reduce-scattered"),
    "zero_hpz_partition_size": Only(1, "ZeRO++'s secondary partition"),
    "zero_quantized_weights": Only(False, "ZeRO++'s quantized gathers"),
    "zero_quantized_nontrainable_weights": Only(False, "ZeRO++'s quantized gathers"),
    "zero_quantized_gradients": Only(False, "ZeRO++'s quantized gradients"),
    "mics_shard_size": Only(-1, "MiCS"),
    "cpu_offload_param": Only(False, "parameters on the CPU"),
}

SWITCHED: dict[str, tuple[str | None, str]] = {
    "amp": ("enabled", "apex mixed precision"),
    "torch_autocast": ("enabled", "fp32 parameters under autocast"),
    "compile": ("deepcompile", "DeepCompile's schedule"),
    "elasticity": ("enabled", "a batch size chosen at run time"),
    "autotuning": ("enabled", "a configuration chosen at run time"),
    "hybrid_engine": ("enabled", "generation between training steps"),
    "curriculum_learning": ("enabled", "a sequence length that changes"),
    "data_efficiency": ("enabled", "a sequence length that changes"),
    "progressive_layer_drop": ("enabled", "layers that are left out"),
    "compression_training": ("enabled", "compression"),
    "quantize_training": ("enabled", "quantization"),
    "weight_quantization": (None, "quantized weights"),
    "sparse_attention": (None, "sparse attention"),
    "pipeline": (None, "pipeline parallelism"),
    "expert_parallel": (None, "expert parallelism"),
}
"""Top-level sections that change what an iteration does, once the switch in them is true (None: once there are any)."""


class Modelled(NamedTuple):
    """What is simulated whatever a key says, which is also DeepSpeed's default."""

    value: Any
    simulated: str


MODELLED_ZERO: dict[str, Modelled] = {
    "contiguous_gradients": Modelled(True, "gradients copied into one bucket"),
    "stage3_max_live_parameters": Modelled(1e9, "gathers ahead until 1e9 elements are live"),
    "stage3_max_reuse_distance": Modelled(1e9, "layers within 1e9 elements of reuse stay gathered"),
    "stage3_prefetch_bucket_size": Modelled(5e7, "two layers' gathers issued ahead"),
    "stage3_param_persistence_threshold": Modelled(1e5, "all parameters of a layer are gathered"),
    "stage3_model_persistence_threshold": Modelled(9223372036854775807, "no limit on resident parameters"),
    "stage3_module_granularity_threshold": Modelled(0, "modules gathered one by one"),
    "stage3_use_all_reduce_for_fetch_params": Modelled(False, "all-gathers"),
    "stage3_allgather_sequential": Modelled(False, "all-gathers of coalesced parameters"),
}
MODELLED_ZERO |= {
    key.removeprefix("stage3_"): modelled for key, modelled in MODELLED_ZERO.items() if key.startswith("stage3_")
}

PRECISIONS = ("bf16", "bfloat16", "fp16")
ADAM = ("adam", "adamw")

TOP = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "zero_optimization"),
    *("optimizer", "activation_checkpointing", "communication_data_type", "data_types", "tensor_parallel", *PRECISIONS),
    *(*IGNORED, *ONLY, *SWITCHED),
)
ZERO = (
    *("stage", "offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_use_pin_memory", "sub_group_size"),
    *("reduce_bucket_size", "zenflow", *IGNORED_ZERO, *ONLY_ZERO, *MODELLED_ZERO),
)
OFFLOAD = ("device", "ratio", "pin_memory", "super_offload", *IGNORED_OFFLOAD)
CHECKPOINTING = ("cpu_checkpointing", *IGNORED_CHECKPOINTING)
