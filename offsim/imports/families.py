"""Families of Hugging Face models: what their config.json calls things, and which parameters their layers have.

Names and defaults are those of the Transformers library (models/*/configuration_*.py, modeling_*.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

Setting = bool | tuple[str, bool]
"""Fixed for the family, or the key of config.json that says so and its default."""

LLAMA_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "ffn_hidden": ("intermediate_size",),
    "vocab": ("vocab_size",),
    "positions": ("max_position_embeddings",),
}
_UNGROUPED_NAMES = {name: keys for name, keys in LLAMA_NAMES.items() if name != "kv_heads"}


@dataclass(frozen=True)
class Family:
    """A decoder-only transformer as one model_type builds it. Numbers of parameters are those of the library."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LLAMA_NAMES)
    """Value -> the keys that it may be under."""
    gated: bool = True
    """Whether the MLP has a gate beside its up projection."""
    kv_heads: int | None = None
    """Where the file has none; None: as many as heads."""
    head_dim: int | None = None
    """Where the file has none; None: hidden / heads."""
    tied: bool = False
    """Whether embedding and head are one, where the file does not say."""
    norms: int = 2
    """Norms of a layer."""
    norm_bias: bool = False
    qk_norm: Setting = False
    """Norms of queries and keys, each over a head."""
    qkv_bias: Setting = False
    out_bias: Setting = False
    mlp_bias: Setting = False
    head_bias: bool = False
    position_offset: int | None = None
    """Learned positions beyond max_position_embeddings; None: positions are not learned."""


_LLAMA = Family(qkv_bias=("attention_bias", False), out_bias=("attention_bias", False), mlp_bias=("mlp_bias", False))
_PLAIN = Family()
_GEMMA = replace(_LLAMA, mlp_bias=False, head_dim=256, tied=True)
_BIASED = Family(gated=False, norm_bias=True, qkv_bias=True, out_bias=True, mlp_bias=True)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": replace(_PLAIN, kv_heads=8),
    "qwen2": replace(_PLAIN, qkv_bias=True),
    "qwen3": replace(_LLAMA, mlp_bias=False, head_dim=128, qk_norm=True),
    "phi3": _PLAIN,
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, norms=4),
    "gemma3_text": replace(_GEMMA, norms=4, qk_norm=True),
    "phi": replace(_BIASED, norms=1, head_bias=True, qk_norm=("qk_layernorm", False)),
    "gpt2": replace(
        _BIASED,
        names={
            "layers": ("n_layer", "num_hidden_layers"),
            "hidden": ("n_embd", "hidden_size"),
            "heads": ("n_head", "num_attention_heads"),
            "ffn_hidden": ("n_inner",),
            "vocab": ("vocab_size",),
            "positions": ("n_positions", "max_position_embeddings"),
        },
        tied=True,
        position_offset=0,
    ),
    "gpt_neox": replace(
        _BIASED,
        names=_UNGROUPED_NAMES,
        qkv_bias=("attention_bias", True),
        out_bias=("attention_bias", True),
    ),
    "opt": replace(
        _BIASED,
        names=_UNGROUPED_NAMES | {"ffn_hidden": ("ffn_dim",)},
        tied=True,
        qkv_bias=("enable_bias", True),
        out_bias=("enable_bias", True),
        mlp_bias=("enable_bias", True),
        position_offset=2,
    ),
    "falcon": replace(
        _BIASED,
        names=LLAMA_NAMES
        | {
            "layers": ("num_hidden_layers", "n_layer"),
            "hidden": ("hidden_size", "n_embed"),
            "heads": ("num_attention_heads", "n_head"),
            "kv_heads": ("num_kv_heads", "n_head_kv"),
            "ffn_hidden": ("ffn_hidden_size",),
        },
        tied=True,
        qkv_bias=("bias", False),
        out_bias=("bias", False),
        mlp_bias=("bias", False),
    ),
}

NO_FFN_MEANS_FOUR_TIMES = ("gpt2", "falcon")
"""Families whose inner size may be absent or null, which makes it 4 x hidden."""

TELLTALES: dict[str, str] = {
    "n_embd": "gpt2",
    "ffn_dim": "opt",
    "word_embed_proj_dim": "opt",
    "multi_query": "falcon",
    "new_decoder_architecture": "falcon",
    "use_parallel_residual": "gpt_neox",
    "intermediate_size": "llama",
}
"""Keys that only one family has, for files without model_type."""

OWN_KEYS: dict[str, tuple[str, ...]] = {
    "opt": ("word_embed_proj_dim", "do_layer_norm_before", "_remove_final_layer_norm", "layer_norm_elementwise_affine"),
    "falcon": ("multi_query", "new_decoder_architecture", "parallel_attn", "num_ln_in_parallel_attn", "alibi"),
}

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")
