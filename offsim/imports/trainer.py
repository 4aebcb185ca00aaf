"""Hugging Face's TrainingArguments: batch sizes, and the configuration of DeepSpeed or FSDP that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offsim.imports.draft import CHECKPOINTING, Draft
from offsim.imports.fsdp_keys import RESHARD
from offsim.imports.keys import Section
from offsim.inputs.document import Document, Mark
from offsim.inputs.errors import KeyPath
from offsim.inputs.yaml_input import read_json, read_yaml

MICRO, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"
DEFAULTS = {MICRO: 8, STEPS: 1}
"""Of TrainingArguments."""
NOTHING = Section(Document({}, {(): Mark("TrainingArguments")}))
"""Where there are no TrainingArguments."""
LENGTHS = ("max_length", "max_seq_length", "max_sequence_length")
"""Tokens of a sequence, as TRL and other scripts on the Trainer call them."""
CHECKPOINTINGS = ("gradient_checkpointing", "activation_checkpointing")
FSDP_SECTION = "fsdp_config"
FSDP_WORDS = {"offload": ("offload_params", True), "auto_wrap": ("auto_wrap_policy", "TRANSFORMER_BASED_WRAP")}
"""Words of the older form of `fsdp`, other than strategies -> key of `fsdp_config` and its value."""

REFUSED = {
    "use_cpu": "training on the CPU",
    "auto_find_batch_size": "a batch size chosen at run time",
    "parallelism_config": "a mesh of several kinds of parallelism",
}
"""Keys that change an iteration where they are switched on."""
MODELLED = {
    "torch_compile": "kernels at the profile's rates, not compiled ones",
    "use_liger_kernel": "no fused kernels; --set model.fused_swiglu=true and training.loss_chunks say otherwise",
    "torch_empty_cache_steps": "no emptying of the allocator's cache",
}
"""Keys that are simulated as if they were off, and what that means where they are on."""
READ = (MICRO, STEPS, "bf16", "fp16", "optim", "deepspeed", "fsdp", FSDP_SECTION, *LENGTHS, *CHECKPOINTINGS)


def read_file(path: Path) -> Document:
    """Read a configuration, JSON by its suffix and else YAML."""
    return read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)


def precision_of(trainer: Section) -> str | None:
    """The 16-bit format that is switched on."""
    return next((name for name in ("bf16", "fp16") if trainer.flag(name)), None)


def sequence_of(trainer: Section) -> tuple[str, int] | None:
    """The key of a sequence's tokens, and how many."""
    return next(((key, length) for key in LENGTHS if (length := trainer.count(key))), None)


def named_configuration(trainer: Section) -> tuple[str, Document] | None:
    """The configuration that the arguments name or have within them, and the option that it is for."""
    if found := trainer.given("deepspeed"):
        return "deepspeed", _inner(trainer, "deepspeed", found)
    if not (asked := trainer.given("fsdp")):
        return None
    config = trainer.given(FSDP_SECTION) or {}
    document = _inner(trainer, FSDP_SECTION, config) if config else Document({}, {(): trainer.document.mark(("fsdp",))})
    section = dict(document.data)
    for word in asked.split() if isinstance(asked, str) else asked if isinstance(asked, list) else []:
        key, value = FSDP_WORDS.get(str(word).lower(), (RESHARD, str(word).upper()))
        if key == RESHARD and str(section.get("version", section.get("fsdp_version", 2))) != "1":
            if value not in ("FULL_SHARD", "SHARD_GRAD_OP"):
                expected = "full_shard or shard_grad_op, offload and auto_wrap; FSDP1 has other strategies"
                raise trainer.unexpected("fsdp", expected)
            value = value == "FULL_SHARD"
        section.setdefault(key, value)
    marks = {(FSDP_SECTION, *path): mark for path, mark in document.marks.items()}
    return "fsdp", Document({FSDP_SECTION: section}, marks)


def _inner(trainer: Section, key: str, value: Any) -> Document:
    """A configuration within the arguments, or in the file that they name, beside their own."""
    if isinstance(value, str):
        own = Path(trainer.document.mark((key,)).origin).parent / value
        return read_file(own if own.exists() else Path(value))
    if not isinstance(value, dict):
        raise trainer.unexpected(key, "a file's path or a section of keys")
    depth = len(trainer.at(key))
    marks: dict[KeyPath, Any] = {
        path[depth:]: mark for path, mark in trainer.document.marks.items() if path[:depth] == trainer.at(key)
    }
    return Document(value, marks)


def account_for_the_rest(trainer: Section, draft: Draft, named: bool) -> None:
    """List the keys that no part of an import has taken; raise InputError for what cannot be simulated.

    `named` says whether the configuration is the one that the arguments name.
    """
    trainer.check_spelling(READ)
    for key, what in REFUSED.items():
        if trainer.given(key):
            raise trainer.refused(key, what)
    if trainer.values and CHECKPOINTING.rpartition(".")[2] not in draft.data["training"]:
        key = next((key for key in CHECKPOINTINGS if key in trainer), CHECKPOINTINGS[0])
        draft.take(trainer, key, CHECKPOINTING, bool(trainer.flag(key)))
    for key, meaning in MODELLED.items():
        if trainer.given(key):
            draft.leave(trainer, key, meaning)
    for key in ("deepspeed", "fsdp", FSDP_SECTION):
        if named and trainer.given(key):
            draft.use(trainer, key, "its keys are in these lists")
        else:
            draft.ignore_all(trainer, {key: "an option says another configuration"})
    read = dict.fromkeys(("bf16", "fp16"), "2 bytes a parameter") | {"optim": "AdamW"}
    read |= dict.fromkeys(LENGTHS, "another length is given")
    draft.ignore_all(trainer, dict.fromkeys(trainer.values, "no part of an iteration, or the script's own") | read)
