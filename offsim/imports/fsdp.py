"""PyTorch FSDP, as accelerate or Hugging Face's Trainer configure it, becomes a scenario's training and scheduler."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from offsim.imports import fsdp_keys as keys
from offsim.imports.batches import take_trainer_batches
from offsim.imports.draft import CHECKPOINTING, Draft, Entry
from offsim.imports.keys import Section
from offsim.imports.trainer import FSDP_SECTION, precision_of
from offsim.inputs.document import Document
from offsim.platform.platform import HOST
from offsim.programs.options import declared
from offsim.programs.schedule import TrainingSchedule
from offsim.schedulers.fsdp_offload import FsdpOffload
from offsim.schedulers.no_offload import NoOffload

FP32 = "fp32 training cannot be simulated"


class Plugin(Section):
    """The section `fsdp_config`, whose keys may begin with `fsdp_`, and whose flags may be texts."""

    def __init__(self, document: Document) -> None:
        super().__init__(document, (FSDP_SECTION,), [name for key in keys.PLUGIN for name in (f"fsdp_{key}", key)])

    def key(self, name: str) -> str:
        """The key as it is in the file, or should be."""
        return name if name in self else f"fsdp_{name}"

    def switch(self, name: str) -> bool | None:
        """True or false, also as text."""
        key = self.key(name)
        value = self.given(key)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return self.flag(key)

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of the choices, in any case."""
        key = self.key(name)
        value = self.word(key)
        if value is not None and value.upper() not in choices:
            raise self.unknown_choice(key, choices)
        return None if value is None else value.upper()


def read_accelerate(document: Document, draft: Draft, trainer: Section, *, gpus: int, gpus_per_node: int) -> None:
    """Take over accelerate's configuration for that many GPUs.

    Raises InputError, with file and line, for what is wrong and for what would change an iteration but cannot be
    simulated.
    """
    top = Section(document, (), keys.TOP)
    kind = top.word("distributed_type")
    if kind is not None and kind.upper() != "FSDP":
        other = "; the file that deepspeed_config names is for --deepspeed" if kind.upper() == "DEEPSPEED" else ""
        raise top.unexpected("distributed_type", f"FSDP{other}")
    draft.use(top, "distributed_type", "PyTorch FSDP")
    for key, what in keys.REFUSED.items():
        if top.given(key):
            raise top.refused(key, what)
    draft.ignore_all(top, dict.fromkeys(keys.REFUSED, "off"))
    if top.flag("use_cpu"):
        raise top.unexpected("use_cpu", "false: training on the CPU cannot be simulated")
    draft.ignore_all(top, {"use_cpu": "off"})
    _take_precision(top, trainer, draft)
    nodes = -(-gpus // gpus_per_node)
    if (machines := top.count("num_machines")) not in (None, nodes):
        draft.leave(top, "num_machines", f"{gpus} GPUs on {nodes} of the profile's nodes")
    elif machines:
        draft.use(top, "num_machines", "as many nodes as the GPUs fill")
    dynamo = top.section("dynamo_config")
    if dynamo.values and str(dynamo.given("dynamo_backend")).upper() != "NO":
        draft.leave(top, "dynamo_config", "kernels at the profile's rates, not compiled ones")
    draft.ignore_all(top, {"dynamo_config": "off"})
    read_plugin(Plugin(document), draft, trainer, gpus=gpus, nodes=nodes, version=1)
    draft.ignore_all(top, keys.IGNORED)


def gpus_of(document: Document) -> int | None:
    """How many processes, one for each GPU, the configuration starts."""
    top = Section(document)
    return None if top.given("num_processes") == -1 else top.count("num_processes")


def _take_precision(top: Section, trainer: Section, draft: Draft) -> None:
    name = top.word("mixed_precision", ("no", "fp16", "bf16", "fp8"))
    if name == "fp8":
        raise top.refused("mixed_precision", "fp8 training")
    if name in (None, "no") and precision_of(trainer) is None:
        raise top.unexpected("mixed_precision", f"bf16 or fp16: {FP32}")
    if name in (None, "no"):
        draft.ignore_all(top, {"mixed_precision": f"{precision_of(trainer)}, as TrainingArguments say"})
    else:
        draft.use(top, "mixed_precision", "2 bytes a parameter in kernels and collectives, of fp32 ones")


def read_trainers(document: Document, draft: Draft, trainer: Section, *, gpus: int, gpus_per_node: int) -> None:
    """Take over the FSDP of TrainingArguments, whose defaults are others than accelerate's."""
    if precision_of(trainer) is None:
        raise trainer.unexpected("bf16", f"true, or fp16: {FP32}")
    nodes = -(-gpus // gpus_per_node)
    read_plugin(Plugin(document), draft, trainer, gpus=gpus, nodes=nodes, version=2, wrap=keys.WRAP)


def read_plugin(
    plugin: Plugin, draft: Draft, trainer: Section, *, gpus: int, nodes: int, version: int, wrap: str = keys.NO_WRAP
) -> None:
    """Take over the section of FSDP and the batch sizes; `version` and `wrap` are defaults."""
    take_trainer_batches(trainer, draft, gpus)
    number = plugin.count(plugin.key("version"), 1, 2) or version
    name = "cpu_offload" if plugin.key("cpu_offload") in plugin else "offload_params"
    offloaded = plugin.switch(name)
    source, strategy = _strategy(plugin, draft, number, nodes)
    scheduler: type[TrainingSchedule] = FsdpOffload if offloaded else NoOffload
    where = "parameters, gradients and optimizer in host memory" if offloaded else "all of it on the GPUs"
    draft.take(plugin, plugin.key(name), "scheduler.name", scheduler.name, where)
    optimizer = _optimizer(trainer)
    if offloaded:
        if strategy == "NO_SHARD":
            expected = "FULL_SHARD or SHARD_GRAD_OP: offload of whole copies cannot be simulated"
            raise plugin.unexpected(source, expected)
        draft.take(plugin, source, "training.zero_stage", 3, "parameters, gradients and optimizer are sharded")
        found: dict[str, tuple[Section, str, object]] = {
            "version": (plugin, plugin.key("version"), number),
            "strategy": (plugin, source, strategy),
            "optim": (trainer, "optim", optimizer),
        }
        for option in declared(FsdpOffload.Options):
            section, key, value = found[option.fsdp]
            why = "" if key in section else "the default; --set says otherwise"
            draft.take(section, key, f"scheduler.{option.name}", option.fsdp_values[value], why)
        if trainer.values and trainer.number("max_grad_norm") != 0:
            draft.leave(trainer, "max_grad_norm", "no clipping")
        if gpus == 1:
            draft.not_modelled.append(Entry("GPUs", "1", "simulated: FSDP's path for several, without collectives"))
    else:
        draft.take(plugin, source, "training.zero_stage", keys.STRATEGIES[strategy], "the ZeRO stage of that traffic")
        draft.take(plugin, source, "training.reduce_bucket_size", _layer(draft), "a layer's gradients together")
        draft.use(plugin, plugin.key("version"), "the same traffic in both versions")
        kept = "simulated: kept beside them, 2 bytes a parameter more, as in ZeRO"
        draft.not_modelled.append(Entry("16-bit parameters", "cast from fp32 shards", kept))
        draft.ignore_all(trainer, {"optim": "AdamW on the GPUs"})
    _take_checkpointing(plugin, draft)
    _take_choices(plugin, draft, number, wrap)
    reasons = {plugin.key(key): why for key, why in keys.IGNORED_FSDP.items()}
    others = ("sharding_strategy", keys.RESHARD, "offload_params", "backward_prefetch")
    draft.ignore_all(plugin, reasons | {plugin.key(key): "another key says it" for key in others})


def _strategy(plugin: Plugin, draft: Draft, version: int, nodes: int) -> tuple[str, str]:
    """The key that says what is sharded, and the strategy; FSDP2 has a flag for two of them."""
    key = plugin.key(keys.RESHARD)
    if version == 2:
        resharded = plugin.switch(keys.RESHARD)
        return key, "FULL_SHARD" if resharded in (None, True) else "SHARD_GRAD_OP"
    if plugin.key("sharding_strategy") in plugin or key not in plugin:
        key = plugin.key("sharding_strategy")
    value: Any = plugin.given(key)
    if isinstance(value, str) and not value.isdigit():
        strategy = plugin.choice(key, keys.STRATEGIES) or ""
    elif value is None:
        strategy = "FULL_SHARD"
    else:
        numbered = dict(enumerate(keys.STRATEGIES, start=1))
        strategy = numbered.get(int(value) if isinstance(value, str | int) and not isinstance(value, bool) else 0, "")
        if not strategy:
            raise plugin.unexpected(key, f"one of {', '.join(keys.STRATEGIES)}, or 1 to {len(numbered)}")
    if strategy in keys.WITHIN_NODES:
        alike = keys.WITHIN_NODES[strategy]
        if nodes > 1:
            problem = f"copies of the model on {nodes} nodes, each sharded, cannot be simulated"
            raise plugin.unexpected(key, f"{alike}: {problem}")
        draft.use(plugin, key, f"{alike}, as there is one node")
        strategy = alike
    return key, strategy


def _layer(draft: Draft) -> int:
    """Weights of a layer, of which FSDP reduces the gradients together."""
    model = draft.data["model"]
    hidden, ffn = model["hidden"], model["ffn_hidden"]
    attention = 2 * hidden * hidden * (1 + model["kv_heads"] / model["heads"])
    return int(attention + (3 if model["swiglu"] else 2) * hidden * ffn)


def _optimizer(trainer: Section) -> str:
    """PyTorch's AdamW: fused by default of TrainingArguments, else a loop over tensors."""
    names = {key for option in declared(FsdpOffload.Options) if option.fsdp == "optim" for key in option.fsdp_values}
    name = trainer.word("optim")
    if name is not None and name not in names:
        raise trainer.unexpected("optim", f"{' or '.join(sorted(names))}, the only optimizers that can be simulated")
    return name or ("adamw_torch_fused" if trainer.values else "adamw_torch")


def _take_checkpointing(plugin: Plugin, draft: Draft) -> None:
    key, moved = plugin.key("activation_checkpointing"), plugin.key("activation_checkpointing_offload")
    if (recomputed := plugin.switch("activation_checkpointing")) is not None:
        draft.take(plugin, key, CHECKPOINTING, recomputed)
    if plugin.switch("activation_checkpointing_offload"):
        if not recomputed:
            raise plugin.unexpected(moved, "false where activation_checkpointing is")
        draft.take(plugin, moved, "placement.activations.tier", HOST, "asynchronous copies of the layers' inputs")


def _take_choices(plugin: Plugin, draft: Draft, version: int, usual_wrap: str) -> None:
    """Keys that say how layers are wrapped and gathered: another schedule of the same work is listed as such."""
    wrap = plugin.key("auto_wrap_policy")
    policy = plugin.choice("auto_wrap_policy", keys.WRAPS)
    if policy == keys.NO_WRAP:
        raise plugin.unexpected(wrap, f"{keys.WRAP}: one unit for the whole model cannot be simulated")
    account = draft.use if (policy or usual_wrap) == keys.WRAP else draft.leave
    account(plugin, wrap, "one unit for each layer")
    prefetch = plugin.choice("backward_prefetch", keys.PREFETCHES)
    if version == 1 or prefetch is not None:
        account = draft.use if prefetch == keys.PREFETCHES[0] else draft.leave
        account(plugin, plugin.key("backward_prefetch"), "the next layer is gathered beside a layer's backward")
    for name in ("forward_prefetch", "limit_all_gathers"):
        if plugin.switch(name) is not None:
            draft.use(plugin, plugin.key(name), keys.LAYERS_AHEAD)
    if plugin.given(ignored := plugin.key("ignored_modules")):
        draft.leave(plugin, ignored, "all modules are sharded")
    policy_key = plugin.key("mixed_precision_policy")
    if plugin.given(policy_key):
        draft.leave(plugin, policy_key, "16-bit parameters and gradients in kernels and collectives")
    draft.ignore_all(plugin, dict.fromkeys((ignored, policy_key), "off"))
