"""Keys of DeepSpeed's configuration by what they mean to a simulated iteration.

Names and defaults are those of DeepSpeed 0.19 (runtime/config.py, runtime/constants.py, runtime/zero/config.py).
"""

from __future__ import annotations

from typing import Any

PROFILING = "reports and their synchronizations are not part of the prediction"
OTHER_STAGES = "of other ZeRO stages"
_CHECKPOINTS = "checkpoints to disk are between iterations"
_NUMBERS = "changes numbers, not their amount"

ZENFLOW = "zenflow"
SUPER_OFFLOAD = "super_offload"
"""The section, and the key of offload_optimizer, that switch to another schedule."""

IGNORED: dict[str, str] = {
    "scheduler": "the learning rate's",
    "gradient_clipping": "the norm is part of every update, its factor part of the scaling",
    **dict.fromkeys(("prescale_gradients", "gradient_predivide_factor", "gradient_allreduce_op"), _NUMBERS),
    "zero_allow_untested_optimizer": "a check at the start",
    **dict.fromkeys(("steps_per_print", "dump_state", "log_level", "timers"), PROFILING),
    **dict.fromkeys(("wall_clock_breakdown", "memory_breakdown", "flops_profiler", "comms_logger"), PROFILING),
    **dict.fromkeys(("tensorboard", "wandb", "csv_monitor", "comet", "monitor_config"), PROFILING),
    **dict.fromkeys(("checkpoint", "nebula", "datastates_ckpt"), _CHECKPOINTS),
    "dataloader_drop_last": "data loading is not modelled",
    "disable_python_gc": "garbage collection is not modelled",
    "eigenvalue": "of quantization schedules",
    "vocabulary_size": "a check at the start",
    "use_data_before_expert_parallelism": "of expert parallelism",
    "data_parallel_group": "the launcher's",
    "seq_parallel_communication_data_type": "of sequence parallelism",
}

IGNORED_ZERO: dict[str, str] = {
    **dict.fromkeys(("legacy_stage1", "parameter_alignment"), OTHER_STAGES),
    ZENFLOW: "off",
    "cpu_offload_use_pin_memory": "deprecated, without effect",
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

IGNORED_OFFLOAD: dict[str, dict[str, str]] = {
    "offload_optimizer": {
        SUPER_OFFLOAD: "off, or in ZeRO stage 3 only",
        "ratio": "all of the optimizer is offloaded",
        "pin_memory": "buffers of NVMe are pinned either way",
        "cpuadam_cores_perc": "of super_offload, which is off",
        "nvme_path": "the profile says how fast NVMe is",
        "fast_init": "initialization",
        "pipeline": "DeepSpeed sets it from pipeline_read and pipeline_write",
    },
    "offload_param": {
        "nvme_path": "the profile says how fast NVMe is",
        "pin_memory": "parameters in host memory are pinned either way",
    },
}
OVERLAP = "overlap_comm"

IGNORED_CHECKPOINTING: dict[str, str] = {
    "partition_activations": "of tensor parallelism",
    "contiguous_memory_optimization": "fragmentation is not modelled",
    "number_checkpoints": "one for each layer",
    "synchronize_checkpoint_boundary": PROFILING,
    "profile": PROFILING,
}


Values = dict[str, tuple[Any, str]]
"""Key -> the value that is simulated, which is also DeepSpeed's default, and in words: of keys `ONLY...`, which can
have no other, what others would be; of keys `MODELLED...` what is simulated whatever they say."""

ONLY: Values = {
    "sparse_gradients": (False, "sparse gradients"),
    "disable_allgather": (False, "another exchange of parameters"),
    "managed_gradient_accumulation": (True, "accumulation steps that the program decides"),
    "sequence_parallel_size": (1, "sequence parallelism"),
    "zero_force_ds_cpu_optimizer": (True, "another CPU optimizer than DeepSpeedCPUAdam"),
    "fp32_allreduce": (False, "gradients reduced in fp32"),
}

ONLY_STAGE_3: Values = {OVERLAP: (True, "gradients reduced on the compute stream")}

ONLY_ZERO: Values = {
    "reduce_scatter": (True, "gradients all-reduced instead of reduce-scattered"),
    "zero_hpz_partition_size": (1, "ZeRO++'s secondary partition"),
    "zero_quantized_weights": (False, "ZeRO++'s quantized gathers"),
    "zero_quantized_nontrainable_weights": (False, "ZeRO++'s quantized gathers"),
    "zero_quantized_gradients": (False, "ZeRO++'s quantized gradients"),
    "mics_shard_size": (-1, "MiCS"),
}

ONLY_ZENFLOW: Values = {"offload": (False, "m and v of selected columns in host memory")}

IGNORED_ZENFLOW: dict[str, str] = {
    "select_strategy": "columns are selected once an epoch",
    "select_interval": "columns are selected once an epoch",
    "auto_ratio": "of the automatic interval",
    "full_warm_up_rounds": "before the steady state",
    "steps_per_epoch": "DeepSpeed sets it",
}

TRAINERS = {"gradient_clipping": 1.0}
"""What the Trainer puts for "auto" by its own default."""

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


MODELLED_STAGE_3: Values = {
    "stage3_max_live_parameters": (1e9, "gathers ahead until 1e9 elements are live"),
    "stage3_max_reuse_distance": (1e9, "layers within 1e9 elements of reuse stay gathered"),
    "stage3_prefetch_bucket_size": (5e7, "two layers' gathers issued ahead"),
    "stage3_param_persistence_threshold": (1e5, "all parameters of a layer are gathered"),
    "stage3_model_persistence_threshold": (9223372036854775807, "no limit on resident parameters"),
    "stage3_module_granularity_threshold": (0, "modules gathered one by one"),
    "stage3_use_all_reduce_for_fetch_params": (False, "all-gathers"),
    "stage3_allgather_sequential": (False, "all-gathers of coalesced parameters"),
}
MODELLED_STAGE_3 |= {key.removeprefix("stage3_"): modelled for key, modelled in MODELLED_STAGE_3.items()}

MODELLED_STAGES_1_2: Values = {
    OVERLAP: (True, "gradients reduced while backward goes on, which is not DeepSpeed's default here"),
    "allgather_partitions": (True, "updated parameters are all-gathered"),
    "allgather_bucket_size": (5e8, "all-gathers of 5e8 elements"),
    "round_robin_gradients": (False, "gradients reduced in the order of layers"),
    "use_multi_rank_bucket_allreduce": (True, "one collective for each bucket"),
    "compute_grad_norm": (True, "the norm of all gradients before the update"),
}

MODELLED_ZERO: Values = {"contiguous_gradients": (True, "gradients copied into one bucket")}

_RATES = "the profile's rates of NVMe, however requests are cut and queued"
MODELLED_AIO: Values = {
    "block_size": (None, f"{_RATES}; tensors smaller than a block are swapped too"),
    **dict.fromkeys(("queue_depth", "intra_op_parallelism", "thread_count"), (None, _RATES)),
    "single_submit": (False, _RATES),
    "overlap_events": (True, _RATES),
    "use_gds": (False, "through host memory"),
}

PRECISIONS = ("bf16", "bfloat16", "fp16")
ADAM = ("adam", "adamw")

TOP = (
    *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "zero_optimization", "aio"),
    *("optimizer", "activation_checkpointing", "communication_data_type", "data_types", "tensor_parallel", *PRECISIONS),
    *(*IGNORED, *ONLY, *SWITCHED),
)
ZERO = (
    *("stage", "offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_param", "sub_group_size"),
    *("reduce_bucket_size", *IGNORED_ZERO, *ONLY_ZERO),
    *(*MODELLED_ZERO, *MODELLED_STAGE_3, *MODELLED_STAGES_1_2),
)
OFFLOADED = {"optimizer": ("offload_optimizer", "cpu_offload"), "parameters": ("offload_param", "cpu_offload_param")}
"""What can be offloaded, the section that says where to, and the older flag for offload to the CPU."""
CHECKPOINTING = ("cpu_checkpointing", *IGNORED_CHECKPOINTING)
