"""DeepSpeed's configuration becomes a scenario's training, placement and scheduler."""

from __future__ import annotations

from offsim.imports import deepspeed_keys as keys
from offsim.imports.batches import take_batches
from offsim.imports.draft import CHECKPOINTING, Draft
from offsim.imports.keys import Section, option_keys, switched_on
from offsim.imports.offload import take_offload
from offsim.imports.trainer import NOTHING, precision_of
from offsim.inputs.document import Document
from offsim.platform.platform import HOST
from offsim.programs.options import declared
from offsim.programs.training import BUCKET_ELEMENTS

SUBGROUP_SIZE = 1_000_000_000


def read_deepspeed(document: Document, draft: Draft, trainer: Section = NOTHING, *, gpus: int, hidden: int) -> None:
    """Take over a configuration for a model of that width on that many GPUs, with the Trainer's arguments.

    Raises InputError, with file and line, for what is wrong and for what would change an iteration but cannot be
    simulated.
    """
    top = Section(document, (), keys.TOP)
    zero = top.section("zero_optimization", keys.ZERO)
    stage = _take_stage(zero, draft)
    precision = _take_precision(top, trainer, draft)
    take_batches(top, trainer, draft, gpus, accumulates=zero.given(keys.ZENFLOW) is None)
    scheduler, devices = take_offload(zero, draft, stage)
    _take_sizes(zero, draft, stage, hidden)
    _take_optimizer(top, draft, offloaded=devices[0] != "none")
    _take_checkpointing(top, draft)
    _check_data_types(top, draft, precision)
    _refuse_switched_on(top, draft)
    draft.take_only(top, keys.ONLY)
    aio = top.section("aio", keys.MODELLED_AIO)
    for section in (top, zero, aio):
        draft.take_options(section, option_keys(section.path, declared(scheduler.Options)))
    draft.ignore_all(top, keys.IGNORED)
    _account_for_stage(zero, draft, stage)
    if "nvme" in devices:
        _compare_with_modelled(aio, keys.MODELLED_AIO, draft)
    draft.ignore_all(aio, dict.fromkeys(aio.values, "nothing is on NVMe"))
    for section in (top, zero):
        draft.ignore_all(section, dict.fromkeys(option_keys(section.path), "of other schedulers"))


def _account_for_stage(zero: Section, draft: Draft, stage: int) -> None:
    """List the keys that say how a stage does its work, and those of the other stages."""
    modelled = keys.MODELLED_ZERO
    if stage == 3:
        if not draft.accounts_for(zero, keys.OVERLAP):
            draft.take_only(zero, keys.ONLY_STAGE_3)
        modelled = modelled | keys.MODELLED_STAGE_3
    elif stage > 0:
        modelled = modelled | keys.MODELLED_STAGES_1_2
        if keys.OVERLAP not in zero and not draft.accounts_for(zero, keys.OVERLAP):
            draft.leave(zero, keys.OVERLAP, modelled[keys.OVERLAP][1])
    draft.take_only(zero, keys.ONLY_ZERO)
    _compare_with_modelled(zero, modelled, draft)
    draft.ignore_all(zero, keys.IGNORED_ZERO)
    others = ("sub_group_size", *keys.MODELLED_STAGE_3, *keys.MODELLED_STAGES_1_2)
    draft.ignore_all(zero, dict.fromkeys(others, keys.OTHER_STAGES))


def _compare_with_modelled(section: Section, modelled: keys.Values, draft: Draft) -> None:
    """List keys that are simulated with one value, whatever they say, as used where that is theirs."""
    for key, (only, simulated) in modelled.items():
        if key in section and not draft.accounts_for(section, key):
            value = section.like(key, only)
            same = value is None or value == only
            if same and not section.is_auto(key):
                draft.use(section, key, simulated)
            else:
                draft.leave(section, key, simulated)


def _refuse_switched_on(top: Section, draft: Draft) -> None:
    if (degree := top.section("tensor_parallel").count("autotp_size", 0) or 1) > 1:
        raise top.refused("tensor_parallel", f"autotp_size {degree}")
    for key, (switch, what) in keys.SWITCHED.items():
        value = top.given(key)
        if value and (switch is None or switched_on(value, switch)):
            raise top.refused(key, what)
    draft.ignore_all(top, dict.fromkeys([*keys.SWITCHED, "tensor_parallel"], "off"))


def _take_stage(zero: Section, draft: Draft) -> int:
    stage = zero.count("stage", 0)
    if zero.is_auto("stage") or (stage or 0) > 3:
        raise zero.unexpected("stage", "0, 1, 2 or 3")
    draft.take_or_default(zero, "stage", "training.zero_stage", stage, 0)
    return stage or 0


def _take_precision(top: Section, trainer: Section, draft: Draft) -> str:
    """Name of the 16-bit format: both have two bytes, so they take the same time."""
    chosen: list[str] = []
    for key in keys.PRECISIONS:
        if key not in top:
            continue
        section = top.section(key)
        for switch in ("fp16_master_weights_and_grads", "bf16_master_weights_and_grads"):
            if section.flag(switch):
                raise section.refused(switch, "optimizer states of 16 bits")
        if section.is_auto("enabled"):
            draft.ignore(section, "enabled", "bf16 or fp16, whichever the Trainer is told: both have 2 bytes")
        elif section.flag("enabled"):
            if chosen:
                raise section.unexpected("enabled", f"false, as {chosen[0]} is enabled")
            chosen.append(key)
            draft.use(section, "enabled", "2 bytes a parameter; overflow steps of fp16 are not modelled")
        else:
            draft.ignore(section, "enabled", "off")
        draft.ignore_all(section, dict.fromkeys(section.values, "numbers, not their amount"))
    autos = [key for key in keys.PRECISIONS if key in top and top.section(key).is_auto("enabled")]
    if not chosen and not autos:
        raise top.document.error((), "neither bf16.enabled nor fp16.enabled is true: fp32 training cannot be simulated")
    if autos and not chosen and trainer.values and precision_of(trainer) is None:
        raise trainer.unexpected("bf16", f"true, or fp16, which DeepSpeed's {autos[0]}.enabled leaves to it")
    return "fp16" if "fp16" in chosen else "bf16"


def _take_sizes(zero: Section, draft: Draft, stage: int, hidden: int) -> None:
    if stage == 3:
        size = zero.count("sub_group_size")
        draft.take_or_default(zero, "sub_group_size", "training.subgroup_size", size, SUBGROUP_SIZE)
    key, target = "reduce_bucket_size", "training.reduce_bucket_size"
    if zero.is_auto(key):
        draft.take(zero, key, target, hidden * hidden, "hidden x hidden, as Hugging Face sets it")
    else:
        draft.take_or_default(zero, key, target, zero.count(key), BUCKET_ELEMENTS)


def _take_optimizer(top: Section, draft: Draft, *, offloaded: bool) -> None:
    optimizer = top.section("optimizer", ("type", "params", "legacy_fusion"))
    if (name := optimizer.word("type")) is None:
        draft.use(top, "optimizer", "AdamW, as Hugging Face's Trainer makes it")
        return
    if name.lower() not in keys.ADAM:
        raise optimizer.unexpected("type", "Adam or AdamW, the only optimizers that can be simulated")
    params = optimizer.section("params")
    if offloaded and params.flag("torch_adam"):
        raise params.unexpected("torch_adam", "false: PyTorch's Adam on the CPU cannot be simulated")
    draft.use(optimizer, "type", f"Adam with fp32 state, on {'the CPU' if offloaded else 'the GPUs'}")
    draft.ignore_all(optimizer, {"params": "numbers, not their amount", "legacy_fusion": "initialization"})


def _take_checkpointing(top: Section, draft: Draft) -> None:
    section = top.section("activation_checkpointing", keys.CHECKPOINTING)
    if section.values:
        draft.take(top, "activation_checkpointing", CHECKPOINTING, True, "the section is there")
        if section.flag("cpu_checkpointing"):
            why = "asynchronous copies, since 0.19.6"
            draft.take(section, "cpu_checkpointing", "placement.activations.tier", HOST, why)
            if section.flag("partition_activations"):
                draft.leave(section, "partition_activations", "asynchronous copies of whole inputs, not blocking ones")
        draft.ignore_all(section, {"cpu_checkpointing": "off", **keys.IGNORED_CHECKPOINTING})


def _check_data_types(top: Section, draft: Draft, precision: str) -> None:
    """Gradients travel and accumulate in the 16-bit format, or the simulated bytes would be wrong."""
    types = top.section("data_types")
    for section, key in ((top, "communication_data_type"), (types, "grad_accum_dtype"), (types, "param_dtype")):
        if (given := section.word(key)) is not None:
            if given.lower() not in ("bf16", "bfloat16", "fp16"):
                raise section.unexpected(key, f"{precision}, or nothing: other sizes cannot be simulated")
            draft.use(section, key, "2 bytes an element")
        elif key in section:
            draft.ignore(section, key, "the 16-bit format")
    draft.ignore_all(types, dict.fromkeys(types.values, "small buffers"))
