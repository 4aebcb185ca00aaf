"""Published config.json files, cut to what decides their shapes, and a configuration of DeepSpeed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

LLAMA_2_7B = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip


def _llama_like(model_type: str, sizes: tuple[int, int, int, int, int, int], **more: Any) -> dict[str, Any]:
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return {"model_type": model_type, **dict(zip((*names, "vocab_size"), sizes, strict=True)), **more}


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-2-7B": (LLAMA_2_7B, 6_738_415_616),
    "Llama-2-7B without optional keys": (
        {key: value for key, value in LLAMA_2_7B.items() if key not in ("num_key_value_heads", "tie_word_embeddings")},
        6_738_415_616,
    ),
    "Llama-3-8B": (_llama_like("llama", (32, 4096, 14336, 32, 8, 128256)), 8_030_261_248),
    "Mistral-7B": (_llama_like("mistral", (32, 4096, 14336, 32, 8, 32000), sliding_window=4096), 7_241_732_096),
    "Qwen2-7B": (_llama_like("qwen2", (28, 3584, 18944, 28, 4, 152064), tie_word_embeddings=False), 7_615_616_512),
    "Qwen2.5-0.5B": (_llama_like("qwen2", (24, 896, 4864, 14, 2, 151936), tie_word_embeddings=True), 494_032_768),
    "Phi-3-mini": (_llama_like("phi3", (32, 3072, 8192, 32, 32, 32064)), 3_821_079_552),
    "Gemma-2B": (_llama_like("gemma", (18, 2048, 16384, 8, 1, 256000), head_dim=256), 2_506_172_416),
    "Gemma-7B": (_llama_like("gemma", (28, 3072, 24576, 16, 16, 256000), head_dim=256), 8_537_680_896),
    "Gemma-2-2B": (_llama_like("gemma2", (26, 2304, 9216, 8, 4, 256000), head_dim=256), 2_614_341_888),
    "Phi-2": (_llama_like("phi", (32, 2560, 10240, 32, 32, 51200), hidden_act="gelu_new"), 2_779_683_840),
    "GPT-2": (
        {"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
         "vocab_size": 50257, "activation_function": "gelu_new", "attn_pdrop": 0.1},
        124_439_808,
    ),
    "GPT-NeoX-20B": (
        {"model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "num_attention_heads": 64,
         "num_hidden_layers": 44, "max_position_embeddings": 2048, "vocab_size": 50432, "tie_word_embeddings": False,
         "use_parallel_residual": True},
        20_554_567_680,
    ),
    "OPT-6.7B": (
        {"model_type": "opt", "hidden_size": 4096, "ffn_dim": 16384, "num_attention_heads": 32,
         "num_hidden_layers": 32, "max_position_embeddings": 2048, "vocab_size": 50272, "word_embed_proj_dim": 4096,
         "do_layer_norm_before": True},
        6_658_473_984,
    ),
    "OPT-350M": (
        {"model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16,
         "num_hidden_layers": 24, "max_position_embeddings": 2048, "vocab_size": 50272, "word_embed_proj_dim": 512,
         "do_layer_norm_before": False},
        331_196_416,
    ),
    "Falcon-7B": (
        {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_hidden_layers": 32,
         "vocab_size": 65024, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True,
         "bias": False, "alibi": False},
        6_921_720_704,
    ),
}  # fmt: skip
"""Name -> config.json and the number of parameters that the Transformers library reports."""

DS_CONFIG: dict[str, Any] = {
    "train_batch_size": 16, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 100}},
    "gradient_clipping": 1.0, "wall_clock_breakdown": True, "steps_per_print": 10,
    "activation_checkpointing": {"partition_activations": False, "cpu_checkpointing": False},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True, "ratio": 0.8, "buffer_count": 4, "fast_init": False},
        "offload_param": {"device": "none"},
        "overlap_comm": True, "contiguous_gradients": True, "round_robin_gradients": True,
        "sub_group_size": 1e8, "reduce_bucket_size": 5e8, "allgather_bucket_size": 5e8,
        "stage3_prefetch_bucket_size": 5e7, "stage3_max_live_parameters": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
}  # fmt: skip

ACCELERATE: dict[str, Any] = {
    "compute_environment": "LOCAL_MACHINE", "debug": False, "distributed_type": "FSDP", "downcast_bf16": "no",
    "enable_cpu_affinity": False,
    "fsdp_config": {
        "fsdp_activation_checkpointing": True, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_backward_prefetch": "BACKWARD_PRE", "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_forward_prefetch": False, "fsdp_offload_params": True, "fsdp_sharding_strategy": "FULL_SHARD",
        "fsdp_state_dict_type": "SHARDED_STATE_DICT", "fsdp_sync_module_states": True,
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer", "fsdp_use_orig_params": True,
    },
    "machine_rank": 0, "main_training_function": "main", "mixed_precision": "bf16", "num_machines": 1,
    "num_processes": 4, "rdzv_backend": "static", "same_network": True, "tpu_env": [], "tpu_use_cluster": False,
    "tpu_use_sudo": False, "use_cpu": False,
}  # fmt: skip
"""As `accelerate config` writes it for FSDP1."""
ARGUMENTS: dict[str, Any] = {
    "output_dir": "out",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 3,
    "bf16": True,
    "gradient_checkpointing": True,
    "learning_rate": 1e-5,
    "max_length": 512,
}


def changed(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with other values, keys written as a__b; ... takes a key away."""
    config = copy.deepcopy(config)
    for name, value in changes.items():
        *path, key = name.split("__")
        section = config
        for part in path:
            section = section.setdefault(part, {})
        if value is ...:
            section.pop(key, None)
        else:
            section[key] = value
    return config


def write(folder: Path, deepspeed: Any = DS_CONFIG, model: Any = LLAMA_2_7B) -> tuple[Path, Path]:
    """Write both files, as JSON unless they are text."""
    paths = folder / "ds_config.json", folder / "config.json"
    for path, content in zip(paths, (deepspeed, model), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
    return paths


def write_huggingface(folder: Path) -> None:
    """Write accelerate's configuration, TrainingArguments that name DeepSpeed's, and a trainer_state.json."""
    entry = {"step": 40, "train_runtime": 400.0, "train_steps_per_second": 0.1}
    for name, content in {
        "accelerate.yaml": ACCELERATE,
        "training_args.json": ARGUMENTS | {"deepspeed": "ds_config.json", "gradient_accumulation_steps": 2},
        "trainer_state.json": {"train_batch_size": 2, "log_history": [entry]},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2))  # which is YAML too
