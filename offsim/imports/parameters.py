"""How many parameters the Transformers library's model of a config.json has."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.imports.families import Family, Setting
from offsim.imports.keys import Section


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as its library resolves them."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_hidden: int
    vocab: int
    positions: int | None
    tied: bool


def setting(config: Section, value: Setting) -> bool:
    """What a family's setting is in this file."""
    if isinstance(value, bool):
        return value
    key, default = value
    given = config.flag(key)
    return default if given is None else given


def count_parameters(config: Section, model_type: str, family: Family, shape: Shape) -> int:
    """Count weights and biases of all modules, as `sum(p.numel() for p in model.parameters())` does."""
    hidden, ffn = shape.hidden, shape.ffn_hidden
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = hidden * (query + 2 * kv) + query * hidden
    attention += (query + 2 * kv) * setting(config, family.qkv_bias) + hidden * setting(config, family.out_bias)
    ups = 2 if family.gated else 1
    mlp = (ups + 1) * hidden * ffn + (ups * ffn + hidden) * setting(config, family.mlp_bias)
    norm = (2 if family.norm_bias else 1) * hidden
    norms, final_norm, embedding, extra = family.norms, norm, hidden, 0
    if model_type == "opt":
        embedding = config.count("word_embed_proj_dim") or hidden
        extra = 2 * embedding * hidden if embedding != hidden else 0
        before = setting(config, ("do_layer_norm_before", True))
        final_norm *= before and not setting(config, ("_remove_final_layer_norm", False))
        if not setting(config, ("layer_norm_elementwise_affine", True)):
            norms = final_norm = 0
    if model_type == "falcon":
        norms = _falcon_norms(config)
    per_head = (2 if family.norm_bias else 1) * shape.head_dim * 2 if setting(config, family.qk_norm) else 0
    total = shape.layers * (attention + mlp + norms * norm + per_head) + final_norm + extra
    total += shape.vocab * embedding * (1 if shape.tied else 2)
    if family.head_bias:
        total += shape.vocab
    if family.position_offset is not None:
        total += ((shape.positions or 0) + family.position_offset) * hidden
    return total


def _falcon_norms(config: Section) -> int:
    new = setting(config, ("new_decoder_architecture", False))
    if not new and not setting(config, ("parallel_attn", True)):
        return 2
    return config.count("num_ln_in_parallel_attn") or (2 if new else 1)
