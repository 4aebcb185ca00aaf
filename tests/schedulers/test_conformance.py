"""Every registered schedule, under each of its options and placements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import conformance
import pytest
from conformance import TIERS, Case, Facts, Held, facts

from offsim.activations import available_rules
from offsim.activations.ssdtrain import SsdTrain
from offsim.platform.platform import GPU, HOST
from offsim.programs.transformer import BF16
from offsim.results.result import Result
from offsim.schedulers import available_schedulers, find_scheduler
from offsim.schedulers.autohete import at_most
from offsim.testing import cases

Bytes = dict[str, float]

# Bytes of a rank on each route in an iteration, from what the real systems' code does. P: parameters that the rank
# owns; C: those whose optimizer state is not on the GPU; N: micro-steps.


def activations(known: Facts) -> Bytes:
    """By their rule; without one, those that are elsewhere leave in forward and come back."""
    if known.placed.rule is not None:
        return RULES[known.placed.rule.chosen.name](known)
    moved = known.activations() if known.placed.activations != GPU else 0.0
    return {"h2d": moved, "d2h": moved}


def parameters(known: Facts) -> Bytes:
    """Parameters that live elsewhere are copied before each pass."""
    elsewhere = known.placed.parameters != GPU and known.schedule.name not in OWN_FETCHES
    return {"h2d": 2 * known.fetched(layers_kept(known)) if elsewhere else 0.0}


# Activation rules


def inputs(known: Facts, staying: int) -> Bytes:
    """Those of recomputed layers, but for some that stay."""
    nbytes = known.micro_steps * (known.placed.recomputed - staying) * known.workload.hidden_bytes
    return {"h2d": nbytes, "d2h": nbytes}


def alst(known: Facts) -> Bytes:
    return inputs(known, 0)


def deepspeed(known: Facts) -> Bytes:
    return inputs(known, 1)


def unsloth(known: Facts) -> Bytes:
    return inputs(known, int(known.placed.rule.options.variant == "smart"))


def torchtune(known: Facts, saved_twice: bool = True) -> Bytes:
    """All layers leave, all but the last come back: its tensors are on the GPU still.

    Its norms are inputs of three projections and, with SwiGLU, of two; its context is one of attention's results too.
    """
    layers, recomputed = known.workload.model.layers, known.placed.recomputed
    more = saved_twice * (3 + known.workload.model.swiglu)
    again = known.workload.layer_activation_bytes + more * known.workload.hidden_bytes
    down = recomputed * known.workload.hidden_bytes + (layers - recomputed) * again
    last = known.workload.hidden_bytes if recomputed == layers else again
    return {"d2h": known.micro_steps * down, "h2d": known.micro_steps * (down - last)}


def trl(known: Facts) -> Bytes:
    return torchtune(known, saved_twice=False)


def megatron(known: Facts) -> Bytes:
    layers = min(known.placed.rule.options.num_layers or known.workload.model.layers, known.workload.model.layers - 1)
    nbytes = known.micro_steps * layers * known.workload.layer_activation_bytes
    return {"h2d": nbytes, "d2h": nbytes}


def megatron_fine_grained(known: Facts) -> Bytes:
    """A share of the layers, but never the last; of tensors those of so many elements."""
    layers, options = known.workload.model.layers, known.placed.rule.options
    moving = min(int(options.fraction * layers), layers - 1)
    large = sum(n for n in known.workload.layer_tensors if n >= options.min_tensor_size)
    nbytes = known.micro_steps * moving * BF16 * large
    return {"h2d": nbytes, "d2h": nbytes}


def ssdtrain(known: Facts) -> Bytes:
    """Nothing where kernels take no time, which leaves none to write; `in_time` says how much otherwise."""
    return {}


def in_time(known: Facts, result: Result) -> Bytes:
    """What SSDTrain moves: the first layers; those whose writes have not ended when backward asks for them stay."""
    layer = known.workload.layer_activation_bytes
    (rank, *_) = conformance.moved(result.run)
    written, read = (round(rank[f"nvme {way}"] / layer / known.micro_steps) for way in ("write", "read"))
    assert 1 <= read <= written <= known.workload.model.layers
    return {f"nvme {way}": n * known.micro_steps * layer for way, n in (("write", written), ("read", read))}


RULES: dict[str, Callable[[Facts], Bytes]] = {
    form.__name__: form
    for form in (alst, deepspeed, unsloth, torchtune, trl, megatron, megatron_fine_grained, ssdtrain)
}


def layers_kept(known: Facts) -> int | None:
    """Layers that stay on the GPU between passes where a window or buffers bound them; None: no such bound.

    Slices of layers on storage are below 1 MiB each, and take a buffer together.
    """
    if hasattr(known.options, "window"):
        return int(known.options.window)
    on_storage = known.placed.parameters in TIERS and TIERS[known.placed.parameters].get("kind") != "memory"
    return int(known.options.parameter_buffer_count) if on_storage else None


def upload(known: Facts) -> float:
    """bf16 parameters that the CPU has updated, unless it casts them straight into host memory."""
    return 2 * known.off_gpu if known.placed.parameters == GPU else 0.0


def accumulation(known: Facts) -> float:
    """Each way, in each micro-step: D2H and H2D at the first, H2D, an addition and D2H at the others."""
    return 2 * known.owned * known.micro_steps


def stored(known: Facts) -> float:
    """bf16 parameters that the GPU has updated, where they live elsewhere."""
    return 0.0 if known.placed.parameters == GPU else 2 * known.on(GPU)


def no_offload(known: Facts) -> Bytes:
    return {}


def zero3_offload(known: Facts) -> Bytes:
    flush = 2 if known.options.gradient_flush == "host_cast" else 4
    return {
        "h2d": accumulation(known) + upload(known),
        "d2h": accumulation(known) + flush * known.off_gpu + stored(known),
    }


def zero3_offload_async_grads(known: Facts) -> Bytes:
    down = accumulation(known) + 4 * known.off_gpu + stored(known)
    return {"h2d": accumulation(known) + upload(known), "d2h": down}


def deep_optimizer_states(known: Facts) -> Bytes:
    """The last of each `update_stride` sub-groups is updated on the GPU: p, m, v up and down, gradients stay there."""
    groups = zip(known.workload.subgroups, known.placed.optimizer, strict=True)
    stride = known.options.update_stride
    fetched = sum(s.elements for s, tier in groups if tier != GPU and (s.index + 1) % stride == 0)
    on_cpu = known.off_gpu - fetched
    return {
        "h2d": accumulation(known) + 12 * fetched + 2 * on_cpu,
        "d2h": accumulation(known) + 12 * fetched + 4 * on_cpu,
    }


def zero2_offload(known: Facts) -> Bytes:
    """With accumulation in stage 2, D2H 2 B a parameter at the first micro-step, H2D 2 and D2H 2 at the others."""
    training = known.workload.training
    up = 2 if getattr(known.options, "upload", "cast_on_cpu") == "cast_on_cpu" else 4
    accumulates = training.zero_stage == 2 and known.micro_steps > 1
    down = 2 * known.micro_steps if accumulates else 0
    back = 2 * (known.micro_steps - 1) if accumulates else 0
    return {"h2d": (back + up) * known.owned, "d2h": (down + 4) * known.owned}


def zero_offload(known: Facts) -> Bytes:
    """2 B a parameter down at the first micro-step, 2 up and 2 down at the others, and 2 of new parameters up."""
    return {"h2d": 2 * known.micro_steps * known.owned, "d2h": 2 * known.micro_steps * known.owned}


def superoffload(known: Facts) -> Bytes:
    """fp32 gradients down, once more before 0.18.9; in the paper fp32 up, and no accumulation buffer without need."""
    version = known.options.version
    buffered = 0.0 if version == "paper" and known.micro_steps == 1 else accumulation(known)
    return {
        "h2d": buffered + (4 if version == "paper" else 2) * known.off_gpu,
        "d2h": buffered + (8 if version == "0.18.0" else 4) * known.off_gpu,
    }


def zenflow(known: Facts) -> Bytes:
    """In an interval of S micro-steps D2H 2 S + 4 and H2D 2 (S - 1) + 2, selected columns included."""
    interval = known.options.update_interval
    steps = interval * known.micro_steps
    accumulated = 2 * steps if steps > 1 else 0
    return {
        "h2d": (2 * (steps - 1) + 2) * known.owned / interval,
        "d2h": (accumulated + 4) * known.owned / interval,
    }


def zero_infinity(known: Facts) -> Bytes:
    """fp32 gradients by way of host memory to storage in backward; the update reads 16 and writes 12 B a parameter."""
    on_storage, in_memory = known.on("storage"), known.on("memory")
    flush = 2 if known.options.gradient_flush == "host_cast" else 4
    moved = {
        "h2d": accumulation(known) + upload(known),
        "d2h": accumulation(known) + 4 * on_storage + flush * in_memory + stored(known),
        "nvme read": 16.0 * on_storage,
        "nvme write": (4.0 + 12.0) * on_storage,
    }
    if known.placed.parameters == "nvme" and not known.options.max_in_cpu:  # else all of a small model stays in memory
        moved["nvme read"] += 2 * known.fetched(layers_kept(known))
        moved["nvme write"] += 2 * known.owned
    return moved


def mlp_offload(known: Facts) -> Bytes:
    """p, m and v on two paths, but for the last that each path keeps in its buffers; 4 B a parameter up."""
    moved = {"h2d": accumulation(known) + 4 * known.off_gpu, "d2h": accumulation(known)}
    paths = sorted(set(known.placed.optimizer) - {GPU})
    for tier in paths:
        groups = [s for s, at in zip(known.workload.subgroups, known.placed.optimizer, strict=True) if at == tier]
        kept = min((known.options.buffer_count or known.options.least_buffers) // len(paths) // 3, len(groups))
        # Up and down in turn, a pass finds in the buffers what the one before ended with: the first, then the last.
        # Always up, it finds the last, but has written only the others.
        first, last = groups[:kept], groups[len(groups) - kept :]
        hits = sum(s.elements for s in (first + last if known.options.alternating else last + last)) / 2
        passed = 12 * (sum(s.elements for s in groups) - hits)
        moved |= {f"{tier} read": passed, f"{tier} write": passed}
    return moved


def stronghold(known: Facts) -> Bytes:
    """16-bit gradients down in each micro-step."""
    return {"d2h": 2 * known.owned * known.micro_steps}


def lohan(known: Facts) -> Bytes:
    """Parameters are read before each pass; p, m, v once; fp32 gradients go down, and through the GPU to be added.

    A recomputed layer keeps the inputs of both halves.
    """
    fetched = 2 * known.fetched(layers_kept(known))
    model, workload = known.workload.model, known.workload
    second_halves = 0.0
    if known.placed.activations != GPU:
        second_halves = known.micro_steps * min(known.placed.recomputed, model.layers - 1) * workload.hidden_bytes
    return {
        "h2d": 4 * known.owned * (known.micro_steps - 1) + second_halves,
        "d2h": 4 * known.owned * known.micro_steps + second_halves,
        "nvme read": fetched + 12 * known.owned,
        "nvme write": (2 + 12) * known.owned,
    }


def greedysnake(known: Facts) -> Bytes:
    """Layer by layer over all micro-batches: parameters move as in one micro-step, summed gradients go down once."""
    once = 2 * known.fetched(layers_kept(known), micro_steps=1)
    again = 2 * known.fetched(layers_kept(known)) - once
    return {
        "h2d": -again,
        "d2h": 2 * known.owned,
        "nvme read": once + 12 * known.owned,
        "nvme write": (2 + 12) * known.owned,
    }


def memascend(known: Facts) -> Bytes:
    """As ZeRO-Infinity; p, m and v in 16 bits save 6 B each way."""
    moved, saved = zero_infinity(known), (12.0 - known.state_bytes) * known.on("storage")
    return {**moved, "nvme read": moved["nvme read"] - saved, "nvme write": moved["nvme write"] - saved}


def smart_infinity(known: Facts) -> Bytes:
    """Over the shared link only gradients, to be updated in the devices, and parameters, on to the GPU."""
    exchanged = 2 if known.options.exchange_dtype == "fp16" else 4
    written = exchanged * known.options.compression * known.owned
    return {
        "h2d": accumulation(known) + exchanged * known.owned,
        "d2h": accumulation(known) + written,
        "csd write": written,
        "csd read": exchanged * known.owned,
    }


def zo2(known: Facts) -> Bytes:
    """Each block comes once and goes back once for each micro-batch, in 4 B a parameter or 2."""
    blocks = known.workload.model.layers * known.workload.layer_elements
    ranks = known.ranks if known.workload.training.zero_stage == 3 else 1
    each_way = (2 if known.options.amp else 4) * blocks * known.micro_steps / ranks
    return {"h2d": each_way, "d2h": each_way}


def fsdp_offload(known: Facts) -> Bytes:
    """fp32 shards up before each pass, or once if they stay; fp32 gradients down in each micro-step."""
    kept = 0 if known.options.reshard_after_forward else known.workload.model.layers
    return {"h2d": 4 * known.fetched(kept), "d2h": 4 * known.owned * known.micro_steps}


def slideformer(known: Facts) -> Bytes:
    """Layers up in 16 bits, cast by the CPU, and gradients down."""
    return {"h2d": 2 * known.fetched(2), "d2h": 2 * known.owned * known.micro_steps}


def megatrain(known: Facts) -> Bytes:
    """Layers come a third time in backward, where they run forward again in blocks."""
    third = known.micro_steps * known.workload.model.layers * known.workload.layer_elements / known.ranks
    return {"h2d": 2 * (known.fetched(0) + third), "d2h": 2 * known.owned * known.micro_steps}


def by_layer_order(known: Facts) -> Facts:
    """All micro-batches run through a layer before the next: parameters and gradients move as in one micro-step."""
    training = known.workload.training
    once = training.model_copy(update={"global_batch": training.micro_batch * training.data_parallel})
    return replace(known, workload=replace(known.workload, training=once))


def l2l(known: Facts) -> Bytes:
    """fp32 parameters up before each pass, with m and v in backward; all three down (28 B a parameter)."""
    fetched = by_layer_order(known).fetched(known.options.window)
    return {"h2d": 4 * fetched + 8 * known.owned, "d2h": 12 * known.owned}


def roundpipe(known: Facts) -> Bytes:
    """16-bit layers up before each pass, gradients down once."""
    return {"h2d": 2 * by_layer_order(known).fetched(0), "d2h": 2 * known.owned}


def llmq(known: Facts) -> Bytes:
    """p, m and v up and down; updated 16-bit parameters down where they live in host memory."""
    fetched, stored = 2 * known.fetched(2), 2 * known.owned
    on_gpu = known.placed.parameters == GPU
    state = known.state_bytes * known.owned
    return {"h2d": state + (not on_gpu) * fetched, "d2h": state + (not on_gpu) * stored}


def megatron_offload(known: Facts) -> Bytes:
    """fp32 gradients down and fp32 parameters up, at the update alone."""
    return {"h2d": 4 * known.off_gpu, "d2h": 4 * known.off_gpu}


def patrickstar(known: Facts) -> Bytes:
    """Gradients down, in the place of parameters or from embedding and head; further micro-steps add up on the host."""
    if all_on_gpu(known):
        return {"d2h": 2 * vocabulary(known)}
    return {"d2h": 2 * known.owned * known.micro_steps + 2 * left_out(known) * layer_slice(known)}


def patrickstar_parameters(known: Facts) -> Bytes:
    """What the CPU has updated comes again in forward; of the rest what did not stay on the GPU, in each pass."""
    layers = 0.0 if all_on_gpu(known) else known.workload.model.layers + left_out(known)
    return {"h2d": 2 * (2 * known.workload.vocab_elements / known.ranks + layers * layer_slice(known))}


def all_on_gpu(known: Facts) -> bool:
    """All chunks fit on the GPU of these tests, and the optimizer state of all layers beside them."""
    return not left_out(known) and known.options.margin and known.micro_steps == 1


def left_out(known: Facts) -> float:
    """Layers that do not fit on the GPU, in each forward and backward but the first: for each comes, another goes.

    By the furthest next use, forward ends with the last layers on the GPU, and backward with the first.
    """
    layers, chunks = known.workload.model.layers, known.options.gpu_chunks
    each = -(-2 * layer_slice(known) // known.options.chunk_bytes)
    kept = layers if chunks is None else min(max(chunks / each, 1), layers)
    return (layers - kept) * (2 * known.micro_steps - 1)


def layer_slice(known: Facts) -> float:
    """The rank's elements of a layer."""
    return known.workload.subgroups[1].elements


def vocabulary(known: Facts) -> float:
    """The rank's elements of embedding and head."""
    return known.workload.subgroups[0].elements + known.workload.subgroups[-1].elements


def autohete(known: Facts) -> Bytes:
    """16-bit gradients for the CPU down in each micro-step; parameters up from it, or down from the GPU."""
    up, stored, layers = 0, 0, known.workload.model.layers
    for block, tier in zip(known.workload.subgroups, known.placed.optimizer, strict=True):
        away = 1 <= block.index <= at_most(layers, known.options.parameters_on_cpu)
        up += block.elements if tier != GPU and not away else 0
        stored += block.elements if tier == GPU and away else 0
    return {"h2d": 2 * up, "d2h": 2 * known.micro_steps * known.off_gpu + 2 * stored}


def autohete_parameters(known: Facts) -> Bytes:
    """Blocks whose parameters are in host memory come before each pass; the last two stay between passes."""
    layers = known.workload.model.layers
    away = at_most(layers, known.options.parameters_on_cpu)
    again = min(away, layers - 2)
    return {"h2d": 2 * known.micro_steps * (away + again) * layer_slice(known)}


def autohete_states(known: Facts) -> Held:
    """Parameters of the first blocks in host memory, of the others on the GPU, each with its gradients where p is."""
    away = at_most(known.workload.model.layers, known.options.parameters_on_cpu) * layer_slice(known)
    held: Held = {
        HOST: {"parameters (bf16)": 2 * away},
        GPU: {"parameters (bf16)": 2 * (known.workload.resident - away)},
    }
    for tier in dict.fromkeys(known.placed.optimizer):
        places = zip(known.workload.subgroups, known.placed.optimizer, strict=True)
        elements = sum(block.elements for block, place in places if place == tier)
        state = {"optimizer state p, m, v (fp32)": 12.0 * elements, "gradients (bf16)": 2.0 * elements}
        held.setdefault(tier, {}).update(state)
    return held


FETCHES: dict[str, Callable[[Facts], Bytes]] = {
    "patrickstar": patrickstar_parameters,
    "autohete": autohete_parameters,
}
"""Bytes of parameters where they are not those that `parameters` says."""

CLOSED_FORMS: dict[str, Callable[[Facts], Bytes]] = {
    form.__name__: form
    for form in (
        no_offload,
        zero3_offload,
        zero3_offload_async_grads,
        deep_optimizer_states,
        zero2_offload,
        zero_infinity,
        mlp_offload,
        stronghold,
        lohan,
        greedysnake,
        memascend,
        smart_infinity,
        zo2,
        fsdp_offload,
        slideformer,
        megatrain,
        l2l,
        roundpipe,
        llmq,
        megatron_offload,
        zero_offload,
        superoffload,
        zenflow,
        patrickstar,
        autohete,
    )
} | {"zero1_offload": zero2_offload, "distzo2": zo2}  # of each block, every rank of DistZO2 moves its part


def zeroth_order_states(known: Facts) -> Held:
    """Blocks where parameters are; embedding, head and three blocks on the GPU."""
    workload, width = known.workload, 2 if known.options.amp else 4
    ranks = known.ranks if workload.training.zero_stage == 3 else 1
    blocks = width * workload.model.layers * workload.layer_elements / ranks
    vocabulary = width * (2 * workload.vocab_elements + workload.model.hidden)
    slots = 3 * width * workload.layer_elements
    return {
        known.placed.parameters: {"parameters of blocks": blocks},
        GPU: {"parameters of embedding and head": vocabulary, "block slots": slots},
    }


HELD: dict[str, Callable[[Facts], Held]] = {
    "zo2": zeroth_order_states,
    "distzo2": zeroth_order_states,
    "autohete": autohete_states,
}
"""What tiers hold where it is not what training holds."""
OWN_FETCHES = {"fsdp_offload", "slideformer", "megatrain", "l2l", "roundpipe", "llmq"}
"""Schedules whose closed form has the copies of parameters: they are not 2 B a parameter before each pass."""


def expected(case: Case, known: Facts) -> Bytes:
    form = CLOSED_FORMS.get(case.schedule)
    if form is None:
        pytest.fail(f"no closed form of the bytes that {case.schedule} moves: add a function of its name to this file")
    total: dict[str, float] = dict(form(known))
    if find_scheduler(case.schedule).program != "training":
        return total
    for further in (activations(known), FETCHES.get(case.schedule, parameters)(known)):
        for route, nbytes in further.items():
            total[route] = total.get(route, 0.0) + nbytes
    return total


STORED = {"max_in_cpu": 0, "parameter_buffer_count": 3, "parameter_buffer_size": 1_000_000}
"""Nothing of a small model would leave host memory otherwise."""
FURTHER = [
    Case("zero_infinity", {"pipeline_read": True, "buffer_count": 8}),
    Case("zero_infinity", {"pipeline_write": True, "buffer_count": 8}),
    Case("zero_infinity", {"pipeline_read": True, "pipeline_write": True, "buffer_count": 12}),
    Case("zero_infinity", STORED, {"parameters": "nvme"}),
    Case("zero_infinity", {**STORED, "parameter_buffer_count": 1}, {"parameters": "nvme"}),
    Case("zero_infinity", STORED, {"parameters": "nvme"}, {"global_batch": 6}),
    Case("zero_infinity", STORED, {"parameters": "nvme", "optimizer": "host"}),
    Case("memascend", STORED, {"parameters": "nvme"}),
    Case("memascend", {**STORED, "parameter_buffers": "largest"}, {"parameters": "nvme"}),
    Case("mlp_offload", {"buffer_count": 18}),
    Case("zero3_offload", {"cpu_ratio": 0.6, "gpu_subgroups": "first"}),
    Case("zero3_offload", {"gradient_flush": "asynchronous", "overlap_comm": False}),
    *(
        Case("superoffload", {"version": version, **options}, {}, training)
        for version in ("0.18.9", "0.18.0", "paper")
        for options, training in (
            ({"gradient_clipping": True}, {}),
            ({"cpu_ratio": 0.6}, {}),
            ({"overlap_comm": False}, {"global_batch": 6}),
        )
    ),
    *(
        Case("zenflow", {"overlap_step": True, "update_interval": interval}, {}, {"zero_stage": stage, **training})
        for stage in (1, 2, 3)
        for interval, training in ((2, {"global_batch": 6}), (1, {}), (3, {}))
    ),
    Case("zenflow", {"update_interval": 1}),
    Case("zero_offload", {"tile_elements": 500_000}, {}, {"zero_stage": 2}),
    Case("zero_offload", {"delayed_update": True}, {}, {"zero_stage": 2, "global_batch": 6}),
    Case("mlp_offload", {"buffer_count": 18, "alternating": False}),
    Case("mlp_offload", {"buffer_count": 200}),
    Case("fsdp_offload", {"version": "fsdp1"}, training={"global_batch": 6}),
    *(Case("patrickstar", {"gpu_chunks": chunks}) for chunks in (1, 3, 5)),
    *(Case("patrickstar", {"gpu_chunks": chunks}, training={"global_batch": 6}) for chunks in (1, 3)),
    Case("patrickstar", {"chunk_bytes": 1_311_232, "gpu_chunks": 4}),
    *(
        Case("autohete", {"checkpointed": 2, "parameters_on_cpu": away, "optimizer_on_cpu": on_cpu})
        for away, on_cpu in ((2, 3), (4, 3), (5, 5), (3, 0))
    ),
    Case("autohete", {"parameters_on_cpu": 3, "optimizer_on_cpu": 3}, training={"global_batch": 6}),
    Case("autohete", {"checkpointed": 2}, {"activations": {"tier": "host"}}),
]
"""Options that need each other."""

LONG = {"sequence": 4096}
"""Inputs of layers of 4 MiB: Unsloth leaves up to 2 MiB where they are."""
WHOLE = {"tier": "host", "recompute": 0}
MOVED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"tier": "host", "rule": "alst"}, {}),
    ({"tier": "host", "rule": "alst", "recompute": 2}, {}),
    ({"tier": "host", "rule": "deepspeed"}, {}),
    ({"tier": "host", "rule": "deepspeed", "recompute": 3}, {}),
    ({"tier": "host", "rule": "unsloth"}, LONG),
    ({"tier": "host", "rule": "unsloth", "slots": 1}, LONG),
    ({"tier": "host", "rule": "unsloth", "variant": "basic"}, {}),
    ({"tier": "host", "rule": "torchtune"}, {}),
    ({"tier": "host", "rule": "torchtune", "recompute": 3}, {}),
    ({"rule": "torchtune", "max_fwd_stash_size": 1, **WHOLE}, {}),
    ({"rule": "trl", **WHOLE}, {}),
    ({"rule": "megatron", **WHOLE}, {}),
    ({"rule": "megatron", "num_layers": 2, **WHOLE}, {}),
    ({"rule": "megatron_fine_grained", "min_tensor_size": 100_000, **WHOLE}, {}),
    ({"rule": "megatron_fine_grained", "min_tensor_size": 1, "fraction": 0.4, **WHOLE}, {}),
    ({"rule": "ssdtrain", "tier": "nvme", "recompute": 0}, {"sequence": 4}),
]
"""Placements of activations by each rule, and the model where another one leaves the rule nothing to do."""
WITH_RULES = [
    Case(name, placement={"activations": placement}, training=training, model=model)
    for name in ("no_offload", "zero3_offload")
    for training in ({}, {"global_batch": 6})
    for placement, model in MOVED
]
FURTHER += WITH_RULES

NAMES = available_schedulers()
ALL = [*(case for name in NAMES for case in cases(name)), *(case for case in FURTHER if case.schedule in NAMES)]
PLAIN = [cases(name)[0] for name in NAMES]


@pytest.mark.parametrize("name", available_rules())
def test_every_rule_has_a_closed_form(name: str) -> None:
    assert name in RULES, f"no closed form of the bytes that {name} moves: add a function of its name"
    assert any(case.placement["activations"]["rule"] == name for case in WITH_RULES)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_bytes_memory_order_and_bounds(case: Case) -> None:
    known = facts(case)
    result = case.simulate()
    timed = known.placed.rule is not None and known.placed.rule.chosen is SsdTrain
    nbytes = expected(case, known) | (in_time(known, result) if timed else {})
    held = HELD.get(case.schedule)
    conformance.check_run(result, known, nbytes, held and held(known))


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_what_holds_of_every_schedule(check: Callable[[Case], None], case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_each_resource_alone_takes_the_sum_of_its_work(case: Case) -> None:
    bytes_moved: Mapping[str, float] = expected(case, facts(case))
    conformance.check_link_alone(case, bytes_moved)
    conformance.check_storage_alone(case, bytes_moved)
    conformance.check_cpu_alone(case)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_small_pools_are_no_deadlock(case: Case, slots: int) -> None:
    conformance.check_small_pools(case, slots)
