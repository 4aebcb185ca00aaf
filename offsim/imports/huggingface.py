"""A Hugging Face model's config.json becomes a scenario's model."""

from __future__ import annotations

from offsim.imports.draft import CHECKPOINTING, Draft, Entry
from offsim.imports.families import EXPERTS, FAMILIES, NO_FFN_MEANS_FOUR_TIMES, OWN_KEYS, TELLTALES, Family
from offsim.imports.keys import Section
from offsim.imports.parameters import Shape, count_parameters, setting
from offsim.inputs.document import Document

SEQUENCE = 2048
"""Tokens of a sequence where neither an option nor a smaller max_position_embeddings says how many."""
TOLERATED = 0.01
"""A difference in parameters that is only mentioned: biases, norms and learned positions are less."""
REFUSED = 0.10
"""One with which the prediction would be for another model."""
DROPOUTS = ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout")


def read_model(document: Document, draft: Draft, *, sequence: int | None, said_by: str = "--sequence") -> int:
    """Take over a model; return its number of parameters in the Transformers library.

    `sequence` is its length in tokens, which `said_by` gives.

    Raises InputError, with file and line, for what is wrong and for what is not a dense decoder-only transformer.
    """
    config = Section(document)
    _refuse_other_kinds(config)
    model_type, family = _family(config, draft)
    shape = _shape(config, model_type, family)
    config.check_spelling([*(key for keys in family.names.values() for key in keys), "tie_word_embeddings", "head_dim"])
    _take_shape(config, draft, family, shape)
    _take_sequence(config, draft, family, shape, sequence, said_by)
    _take_attention(config, draft)
    if config.flag("gradient_checkpointing"):
        draft.take(config, "gradient_checkpointing", CHECKPOINTING, True)
    _account_for_the_rest(config, draft, model_type, family)
    return count_parameters(config, model_type, family, shape)


def _account_for_the_rest(config: Section, draft: Draft, model_type: str, family: Family) -> None:
    settings = (family.qk_norm, family.qkv_bias, family.out_bias, family.mlp_bias)
    counted = {value[0] for value in settings if isinstance(value, tuple)}
    for key in config.values:
        if key in counted or key in OWN_KEYS.get(model_type, ()) or key == "head_dim":
            draft.use(config, key, "in the number of parameters")
        elif key in DROPOUTS:
            if config.number(key, 0, 1):
                draft.leave(config, key, "no kernels of dropout")
        elif key == "sliding_window" and (window := config.count(key, 0)) and window < draft.data["model"]["sequence"]:
            draft.leave(config, key, "attention over the whole sequence")
    names = [key for names in family.names.values() for key in names]
    draft.ignore_all(config, {key: "not a size" for key in config.values if key not in names})


def check_parameters(document: Document, draft: Draft, counted: int, modelled: int, *, refuse: bool) -> None:
    """List both numbers of parameters; with `refuse` InputError where they are of different models."""
    difference = abs(modelled - counted) / counted
    numbers = f"counted {counted:,}, simulated {modelled:,}"
    if refuse and difference > REFUSED:
        why = "heads that are not hidden / heads wide, or embeddings of another width, cannot be simulated"
        raise document.error((), f"parameters: {numbers}, {difference:.0%} off: {why}")
    listed = draft.used if difference <= TOLERATED else draft.not_modelled
    listed.append(Entry("parameters", f"counted {counted:,}", f"simulated {modelled:,} ({difference:.1%} off)"))


def _refuse_other_kinds(config: Section) -> None:
    for key in EXPERTS:
        if (config.count(key, 0) or 0) > 1:
            raise config.refused(key, "mixtures of experts")
    if config.flag("is_encoder_decoder"):
        raise config.unexpected("is_encoder_decoder", "false: only decoders can be simulated")
    for key, what in (
        ("text_config", "models of text and images cannot be simulated, but what is in it, as a file of its own"),
        ("quantization_config", "quantized weights cannot be simulated"),
    ):
        if config.given(key):
            raise config.document.error(config.at(key), f"{key}: {what}")


def _family(config: Section, draft: Draft) -> tuple[str, Family]:
    name = config.word("model_type")
    if name is None:
        name = next((family for key, family in TELLTALES.items() if key in config), None)
        if name is None:
            raise config.document.error((), f"missing key 'model_type': expected one of {', '.join(FAMILIES)}")
        draft.use(config, "model_type", f"{name}, by the other keys")
    elif name not in FAMILIES:
        raise config.unknown_choice("model_type", FAMILIES)
    else:
        draft.use(config, "model_type", "names and defaults of that family")
    return name, FAMILIES[name]


def _key(config: Section, family: Family, value: str) -> str:
    """The key that a value is under in this file, or should be."""
    keys = family.names[value]
    return next((key for key in keys if key in config), keys[0])


def _shape(config: Section, model_type: str, family: Family) -> Shape:
    def required(value: str) -> int:
        key = _key(config, family, value)
        found = config.count(key)
        if found is None:
            raise config.unexpected(key, "a whole number")
        return found

    hidden, heads = required("hidden"), required("heads")
    if model_type in NO_FFN_MEANS_FOUR_TIMES:
        ffn = config.count(_key(config, family, "ffn_hidden")) or 4 * hidden
    else:
        ffn = required("ffn_hidden")
    positions = config.count(_key(config, family, "positions"))
    if positions is None and family.position_offset is not None:
        positions = required("positions")
    tied = config.flag("tie_word_embeddings")
    return Shape(
        layers=required("layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(config, model_type, family, heads),
        head_dim=config.count("head_dim") or family.head_dim or -(-hidden // heads),
        ffn_hidden=ffn,
        vocab=required("vocab"),
        positions=positions,
        tied=family.tied if tied is None else tied,
    )


def _kv_heads(config: Section, model_type: str, family: Family, heads: int) -> int:
    if "kv_heads" not in family.names:
        return heads
    given = config.count(_key(config, family, "kv_heads"))
    if model_type == "falcon" and not setting(config, ("new_decoder_architecture", False)):
        return 1 if setting(config, ("multi_query", True)) else heads
    return given or family.kv_heads or heads


def _take_shape(config: Section, draft: Draft, family: Family, shape: Shape) -> None:
    for value in ("layers", "hidden", "ffn_hidden", "heads", "kv_heads", "vocab"):
        size = getattr(shape, value)
        if value not in family.names:
            draft.take(config, _key(config, family, "heads"), f"model.{value}", size, "one for each head")
            continue
        key = _key(config, family, value)
        draft.take(config, key, f"model.{value}", size, "" if config.given(key) == size else "the family's rule")
    gate = "a gate beside the up projection" if family.gated else "no gate"
    draft.take(config, "model_type", "model.swiglu", family.gated, gate)
    why = "" if config.flag("tie_word_embeddings") is not None else "the family's default"
    draft.take(config, "tie_word_embeddings", "model.tied_embeddings", shape.tied, why)


def _take_sequence(
    config: Section, draft: Draft, family: Family, shape: Shape, sequence: int | None, said_by: str
) -> None:
    key = _key(config, family, "positions")
    if sequence is not None:
        draft.option(said_by, "model.sequence", sequence, str(sequence), "tokens")
        if shape.positions is not None and sequence > shape.positions:
            if family.position_offset is not None:
                raise config.unexpected(key, f"at least the {sequence} tokens of {said_by}: its positions are learned")
            draft.leave(config, key, f"{said_by} {sequence}")
        elif shape.positions is not None:
            draft.ignore(config, key, f"only a bound on {said_by}")
        return
    length = min(shape.positions or SEQUENCE, SEQUENCE)
    why = f"at most {SEQUENCE}; --sequence says what is trained"
    draft.take(config, key, "model.sequence", length, why, assumed=True)


def _take_attention(config: Section, draft: Draft) -> None:
    keys = [key for key in ("attn_implementation", "_attn_implementation") if key in config]
    key = keys[0] if keys else "attn_implementation"
    name = config.word(key) or "sdpa"
    why = f"{name}: " + ("attention matrices are stored" if name == "eager" else "fused attention")
    draft.take(config, key, "model.flash_attention", name != "eager", why if keys else f"the library's default, {why}")
    if name == "eager":
        draft.take(config, key, "model.softmax_fp32", True, "eager attention: softmax in fp32")
