"""DeepSpeed's configuration, of ZeRO stage 3, becomes a scenario's training and scheduler."""

from __future__ import annotations

from collections.abc import Mapping

from offsim.imports import deepspeed_keys as keys
from offsim.imports.batches import take_batches
from offsim.imports.draft import Draft
from offsim.imports.keys import Section, switched_on
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import Document
from offsim.programs.training import BUCKET_ELEMENTS

SUBGROUP_SIZE = 1_000_000_000
DEFAULT = "DeepSpeed's default"
CHECKPOINTING = "training.activation_checkpointing"

BLOCKING, ASYNCHRONOUS, RESIDENT = "zero3_offload", "zero3_offload_async_grads", "no_offload"


def read_deepspeed(document: Document, draft: Draft, *, gpus: int, hidden: int) -> None:
    """Take over a configuration for a model of that width on that many GPUs.

    Raises InputError, with file and line, for what is wrong and for what would change an iteration but cannot be
    simulated.
    """
    top = Section(document, (), keys.TOP)
    zero = top.section("zero_optimization", keys.ZERO)
    _take_stage(zero, draft)
    precision = _take_precision(top, draft)
    take_batches(top, draft, gpus)
    offload = _take_optimizer_offload(zero, draft)
    _take_sizes(zero, draft, hidden)
    _take_optimizer(top, draft, offloaded=offload)
    _take_checkpointing(top, draft)
    _check_data_types(top, draft, precision)
    if (degree := top.section("tensor_parallel").count("autotp_size", 0) or 1) > 1:
        raise _refused(top, "tensor_parallel", f"autotp_size {degree}")
    for key, (switch, what) in keys.SWITCHED.items():
        value = top.given(key)
        if value and (switch is None or switched_on(value, switch)):
            raise _refused(top, key, what)
    for section, only, ignored in ((top, keys.ONLY, keys.IGNORED), (zero, keys.ONLY_ZERO, keys.IGNORED_ZERO)):
        _take_only(section, only, draft)
        _ignore(section, ignored, draft)
    _ignore(top, dict.fromkeys([*keys.SWITCHED, "tensor_parallel"], "off"), draft)
    for key, modelled in keys.MODELLED_ZERO.items():
        if key in zero:
            value = zero.flag(key) if isinstance(modelled.value, bool) else zero.number(key, 0, 2.0**63)
            same = value is None or value == modelled.value
            if same and not zero.is_auto(key):
                draft.use(zero, key, modelled.simulated)
            else:
                draft.leave(zero, key, f"simulated: {modelled.simulated}")


def _refused(section: Section, key: str, what: str) -> InputError:
    return section.document.error(section.at(key), f"{section.name(key)}: {what} cannot be simulated")


def _ignore(section: Section, reasons: Mapping[str, str], draft: Draft) -> None:
    for key, why in reasons.items():
        if key in section:
            draft.ignore(section, key, why)


def _take_only(section: Section, only: Mapping[str, keys.Only], draft: Draft) -> None:
    for key, (expected, other) in only.items():
        if key not in section:
            continue
        value = section.flag(key) if isinstance(expected, bool) else section.number(key, -1)
        if value is not None and value != expected:
            raise section.unexpected(key, f"{str(expected).lower()}: {other} cannot be simulated")
        draft.use(section, key, "as simulated")


def _take_stage(zero: Section, draft: Draft) -> None:
    if zero.count("stage", 0) != 3:
        raise zero.unexpected("stage", "3, the only ZeRO stage that can be simulated")
    draft.use(zero, "stage", "ZeRO-3")


def _take_precision(top: Section, draft: Draft) -> str:
    """Name of the 16-bit format: both have two bytes, so they take the same time."""
    chosen: list[str] = []
    for key in keys.PRECISIONS:
        if key not in top:
            continue
        section = top.section(key)
        for switch in ("fp16_master_weights_and_grads", "bf16_master_weights_and_grads"):
            if section.flag(switch):
                raise _refused(section, switch, "optimizer states of 16 bits")
        if section.is_auto("enabled"):
            draft.ignore(section, "enabled", "bf16 or fp16, whichever the Trainer is told: both have 2 bytes")
        elif section.flag("enabled"):
            if chosen:
                raise section.unexpected("enabled", f"false, as {chosen[0]} is enabled")
            chosen.append(key)
            draft.use(section, "enabled", "2 bytes a parameter; overflow steps of fp16 are not modelled")
        else:
            draft.ignore(section, "enabled", "off")
        for other in section.values:
            if other != "enabled":
                draft.ignore(section, other, "numbers, not their amount")
    autos = [key for key in keys.PRECISIONS if key in top and top.section(key).is_auto("enabled")]
    if not chosen and not autos:
        raise top.document.error((), "neither bf16.enabled nor fp16.enabled is true: fp32 training cannot be simulated")
    return "fp16" if "fp16" in chosen else "bf16"


def _take_optimizer_offload(zero: Section, draft: Draft) -> bool:
    """Choose the scheduler; whether the optimizer is on the CPU."""
    for key in ("offload_param", "zenflow"):
        if key not in zero:
            continue
        section = zero.section(key, keys.OFFLOAD if key == "offload_param" else None)
        if key == "zenflow" and section.values:
            raise _refused(zero, key, "ZenFlow")
        if (device := section.word("device", ("none", "cpu", "nvme"))) not in (None, "none"):
            raise section.unexpected("device", f"none: parameters on {device} cannot be simulated")
        draft.ignore(zero, key, "off")
    offload = zero.section("offload_optimizer", keys.OFFLOAD)
    device = offload.word("device", ("none", "cpu", "nvme")) or "none"
    old = zero.flag("cpu_offload")
    if old and offload.values:
        raise zero.unexpected("cpu_offload", "offload_optimizer alone, which replaces it")
    if device == "nvme":
        raise offload.unexpected("device", "cpu or none: an optimizer on NVMe cannot be simulated")
    if device == "none" and not old:
        source = (offload, "device") if offload.values else (zero, "offload_optimizer")
        draft.take(*source, "scheduler.name", RESIDENT, "the optimizer on the GPUs")
        _ignore(offload, dict.fromkeys(keys.OFFLOAD[1:], "the optimizer is on the GPUs"), draft)
        _ignore(zero, {"cpu_offload": "off"}, draft)
    else:
        _take_cpu_offload(zero, offload, draft, "cpu_offload" if old else "device")
    _ignore(zero, {"cpu_offload_use_pin_memory": "deprecated, without effect"}, draft)
    return device == "cpu" or bool(old)


def _take_cpu_offload(zero: Section, offload: Section, draft: Draft, key: str) -> None:
    section = zero if key == "cpu_offload" else offload
    if offload.flag("super_offload"):
        raise _refused(offload, "super_offload", "SuperOffload")
    ratio = offload.number("ratio", 0, 1)
    if offload.flag("pin_memory") is False:
        draft.take(section, key, "scheduler.name", BLOCKING, "by pin_memory")
        draft.use(offload, "pin_memory", "gradients copied while the host waits")
    else:
        why = f"gradients copied asynchronously; builds that block: --scheduler {BLOCKING}"
        draft.take(section, key, "scheduler.name", ASYNCHRONOUS, why)
        draft.use(offload, "pin_memory", "gradients in pinned memory")
    default = "" if ratio is not None else DEFAULT
    draft.take(offload, "ratio", "scheduler.cpu_ratio", 1.0 if ratio is None else float(ratio), default)
    _ignore(offload, {"super_offload": "off", **keys.IGNORED_OFFLOAD}, draft)


def _take_sizes(zero: Section, draft: Draft, hidden: int) -> None:
    size = zero.count("sub_group_size")
    draft.take(zero, "sub_group_size", "training.subgroup_size", size or SUBGROUP_SIZE, "" if size else DEFAULT)
    bucket = zero.count("reduce_bucket_size")
    if zero.is_auto("reduce_bucket_size"):
        why = "hidden x hidden, as Hugging Face sets it"
        draft.take(zero, "reduce_bucket_size", "training.reduce_bucket_size", hidden * hidden, why)
    else:
        default = "" if bucket else DEFAULT
        draft.take(zero, "reduce_bucket_size", "training.reduce_bucket_size", bucket or BUCKET_ELEMENTS, default)


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
    _ignore(optimizer, {"params": "numbers, not their amount", "legacy_fusion": "initialization"}, draft)


def _take_checkpointing(top: Section, draft: Draft) -> None:
    section = top.section("activation_checkpointing", keys.CHECKPOINTING)
    if section.flag("cpu_checkpointing"):
        raise _refused(section, "cpu_checkpointing", "checkpoints of activations in host memory")
    if section.values:
        draft.take(top, "activation_checkpointing", CHECKPOINTING, True, "the section is there")
        _ignore(section, {"cpu_checkpointing": "off", **keys.IGNORED_CHECKPOINTING}, draft)


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
    for key in types.values:
        if key not in ("grad_accum_dtype", "param_dtype"):
            draft.ignore(types, key, "small buffers")
