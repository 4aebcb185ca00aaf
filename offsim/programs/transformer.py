"""What a decoder-only transformer asks for: parameters, sub-groups, kernels and activation bytes, per rank.

Parameters are counted as Megatron-DeepSpeed lays them out (norm weights, no biases). Kernels are (FLOPs, bytes)
pairs; how long they take is the GPU's matter (`Kernel.seconds`). T = micro_batch x sequence tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter

from offsim.platform.hardware import Gpu
from offsim.scenario import Model, Training

BF16 = 2
FP32 = 4
REUSED_BYTES = 2**25
"""glibc keeps freed buffers below this size (mallopt(3), M_MMAP_THRESHOLD); larger ones go back to the kernel."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One parameter tensor of a tensor-parallel rank, before ZeRO-3 partitioning.

    `layer` is -1 for the embedding, and the number of layers for what follows the last.
    """

    elements: int
    layer: int
    in_mlp: bool = False


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Consecutive whole parameters of a rank's ZeRO-3 partition, updated together. `elements` is the rank's share."""

    index: int
    elements: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients reduced together: `elements` before reduce-scatter, and the rank's shares by sub-group index.

    `large` are those of tensors that are copied into fresh pages of host memory. `largest` is the rank's share of the
    largest gradient; `in_mlp` says whether one of an MLP overflows the bucket.
    """

    elements: int
    shares: tuple[tuple[int, int], ...]
    large: tuple[tuple[int, int], ...] = ()
    largest: int = 0
    in_mlp: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """Bytes an element of a layer's attention matrices: each tensor kept for backward, and the most at once in a pass.

    `buffer` is there all the time.
    """

    kept: tuple[int, ...] = ()
    forward: int = 0
    backward: int = 0
    buffer: int = 0

    @classmethod
    def of(cls, model: Model) -> Scores:
        """By how the model's attention is computed.

        Kept are the softmax (in fp32 its 16-bit copy too) and with dropout a mask of 1 byte and the result
        (Korthikanti et al. 2022, section 4.1). Forward has the scores beside. Backward has the gradient of what values
        are multiplied by, then that of the softmax: in place in Megatron-LM's kernel, else in fp32 and 16 bits.
        """
        if model.flash_attention:
            return cls()
        kept: tuple[int, ...]
        if model.softmax_fp32:
            kept = (FP32, 1, BF16) if model.dropout else (FP32, BF16)
            return cls(kept, sum(kept) + BF16, 2 * FP32 + BF16)
        kept = (BF16, 1, BF16) if model.dropout else (BF16,)
        return cls(kept, sum(kept) + BF16, sum(kept) + BF16, BF16)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A GPU kernel: matrix FLOPs, bytes of device memory read plus written, and how many launches it stands for."""

    flops: float
    nbytes: float
    launches: int = 1

    def seconds(self, gpu: Gpu) -> float:
        """Roofline with a fixed cost: GEMM time is affine in FLOPs, so small matrices lose efficiency."""
        roof = max(self.flops / gpu.matrix_flops_per_s, self.nbytes / gpu.hbm_bytes_per_s)
        return roof + self.launches * gpu.kernel_latency_s


@dataclass(frozen=True, slots=True)
class Cost:
    """A sequence of kernels, summed up for one GPU."""

    seconds: float
    flops: float
    nbytes: float


def cost(kernels: Iterable[Kernel], gpu: Gpu) -> Cost:
    """Time, FLOPs and bytes of kernels that run one after another."""
    listed = list(kernels)
    return Cost(sum(k.seconds(gpu) for k in listed), sum(k.flops for k in listed), sum(k.nbytes for k in listed))


def build_subgroups(shares: Sequence[int], subgroup_size: int) -> list[list[int]]:
    """Indices of parameters per sub-group: each is closed as soon as it holds `subgroup_size` elements."""
    groups: list[list[int]] = []
    current: list[int] = []
    held = 0
    for index, elements in enumerate(shares):
        current.append(index)
        held += elements
        if held >= subgroup_size:
            groups.append(current)
            current, held = [], 0
    if current:
        groups.append(current)
    return groups


def build_buckets(tensors: Sequence[tuple[int, int, int]], bucket_elements: int) -> list[list[tuple[int, int, int]]]:
    """Split (elements, share, sub-group) into buckets: a tensor that would overflow the bucket flushes it first."""
    buckets: list[list[tuple[int, int, int]]] = []
    current: list[tuple[int, int, int]] = []
    held = 0
    for tensor in tensors:
        if current and held + tensor[0] > bucket_elements:
            buckets.append(current)
            current, held = [], 0
        current.append(tensor)
        held += tensor[0]
    if current:
        buckets.append(current)
    return buckets


@dataclass(frozen=True)
class Workload:
    """A model under a training set-up, seen from one rank.

    By default, optimizer state is in sub-groups of a size, and gradients are reduced in buckets of a size; `by_layer`
    makes each layer a sub-group and a bucket, and so the embedding and the head.
    """

    model: Model
    training: Training
    by_layer: bool = False

    @property
    def _tp(self) -> int:
        return self.training.tensor_parallel

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.training.micro_batch * self.model.sequence

    @property
    def kv_hidden(self) -> int:
        """Width of all key (or value) heads."""
        return self.model.hidden // self.model.heads * self.model.kv_heads

    @cached_property
    def tensors(self) -> list[Tensor]:
        """Parameters of a tensor-parallel rank in the order of the module tree."""
        m, tp = self.model, self._tp
        h = m.hidden
        up = 2 if m.swiglu else 1
        layer = (
            h,  # input norm
            h * h // tp,  # query
            2 * h * self.kv_hidden // tp,  # keys and values
            h * h // tp,  # attention output
            h,  # post-attention norm
            up * h * m.ffn_hidden // tp,  # up projection
            h * m.ffn_hidden // tp,  # down projection
        )
        vocab = m.vocab * h // tp
        layers = [Tensor(elements, index, i > 4) for index in range(m.layers) for i, elements in enumerate(layer)]
        head = [] if m.tied_embeddings else [Tensor(vocab, m.layers)]
        return [Tensor(vocab, -1), *layers, Tensor(h, m.layers), *head]  # embedding, layers, final norm, head

    @cached_property
    def parameters(self) -> int:
        """Parameters of a tensor-parallel rank, before ZeRO-3 partitioning."""
        return sum(t.elements for t in self.tensors)

    @cached_property
    def shares(self) -> list[int]:
        """Elements of each tensor whose optimizer state the rank owns.

        ZeRO-3 splits every parameter over all data-parallel ranks, padded; stage 0 splits none. In stages 1 and 2 the
        rank owns a contiguous range of the model; here the mean of all ranks, an equal part of every tensor.
        """
        dp = self.training.data_parallel if self.training.zero_stage else 1
        return [-(-t.elements // dp) for t in self.tensors]

    @property
    def resident(self) -> int:
        """Parameters that stay with the rank: its partition in stage 3, all in the others."""
        return self.partition if self.training.zero_stage == 3 else self.parameters

    @cached_property
    def partition(self) -> int:
        """Parameters that a rank owns."""
        return sum(self.shares)

    @cached_property
    def _grouping(self) -> list[list[int]]:
        if self.by_layer:
            layers = [tensor.layer for tensor in self.tensors]
            return [[i for i, layer in enumerate(layers) if layer == each] for each in range(-1, self.model.layers + 1)]
        whole = self.training.zero_stage < 3  # stages below 3 update a parameter group at once
        return build_subgroups(self.shares, self.partition if whole else self.training.subgroup_size)

    @cached_property
    def subgroups_of_layers(self) -> dict[int, tuple[int, ...]]:
        """Layer -> the sub-groups that hold its parameters; -1 is the embedding, the number of layers the head."""
        layers = [tensor.layer for tensor in self.tensors]
        found: dict[int, list[int]] = {}
        for index, members in enumerate(self._grouping):
            for layer in dict.fromkeys([layers[tensor] for tensor in members]):
                found.setdefault(layer, []).append(index)
        return {layer: tuple(indices) for layer, indices in found.items()}

    @cached_property
    def subgroups(self) -> list[Subgroup]:
        """The rank's sub-groups, in the order of the module tree."""
        return [Subgroup(i, sum(self.shares[t] for t in members)) for i, members in enumerate(self._grouping)]

    @cached_property
    def layer_elements(self) -> int:
        """Parameters of one layer of a tensor-parallel rank."""
        return sum(t.elements for t in self.tensors if t.layer == 0)

    @property
    def vocab_elements(self) -> int:
        """Parameters of the embedding, or of the head."""
        return self.tensors[0].elements

    def buckets(self, bucket_elements: int) -> list[tuple[int, Bucket]]:
        """Gradient buckets in backward order, each with the `layer` whose backward flushes it (-1: the embedding's).

        A bucket of a size is flushed by the tensor that overflows it, a layer's bucket by that layer.
        """
        if bucket_elements not in self._buckets:
            self._buckets[bucket_elements] = self._list_buckets(bucket_elements)
        return self._buckets[bucket_elements]

    @cached_property
    def _buckets(self) -> dict[int, list[tuple[int, Bucket]]]:
        return {}

    def _list_buckets(self, bucket_elements: int) -> list[tuple[int, Bucket]]:
        subgroup_of = {tensor: index for index, members in enumerate(self._grouping) for tensor in members}
        ready = [(self.tensors[i].elements, self.shares[i], subgroup_of[i]) for i in reversed(range(len(self.tensors)))]
        layers = [t.layer for t in reversed(self.tensors)]
        buckets = []
        seen = 0
        whole = [list(members) for _, members in groupby(ready, key=itemgetter(2))]
        for members in whole if self.by_layer else build_buckets(ready, bucket_elements):
            seen += len(members)
            shares: dict[int, int] = {}
            large: dict[int, int] = {}
            for _, share, subgroup in members:
                shares[subgroup] = shares.get(subgroup, 0) + share
                if BF16 * share >= REUSED_BYTES:
                    large[subgroup] = large.get(subgroup, 0) + share
            flushed_by = layers[seen - 1] if self.by_layer else layers[seen] if seen < len(layers) else -1
            in_mlp = not self.by_layer and seen < len(layers) and self.tensors[-1 - seen].in_mlp
            largest = max(share for _, share, _ in members)
            elements, taken = sum(member[0] for member in members), (tuple(shares.items()), tuple(large.items()))
            buckets.append((flushed_by, Bucket(elements, *taken, largest, in_mlp)))
        return buckets

    # Kernels. Element-wise kernels are counted by the tensors that they read and write.

    def _linear(self, inputs: float, outputs: float) -> Kernel:
        t = self.tokens
        return Kernel(2 * t * inputs * outputs, BF16 * (t * (inputs + outputs) + inputs * outputs))

    def _layer_linears(self) -> list[Kernel]:
        m, tp = self.model, self._tp
        up = 2 if m.swiglu else 1
        return [
            self._linear(m.hidden, m.hidden / tp),
            self._linear(m.hidden, 2 * self.kv_hidden / tp),
            self._linear(m.hidden / tp, m.hidden),
            self._linear(m.hidden, up * m.ffn_hidden / tp),
            self._linear(m.ffn_hidden / tp, m.hidden),
        ]

    @property
    def attention_scores(self) -> float:
        """Elements of the attention matrices of one layer: micro_batch x heads x sequence^2."""
        m = self.model
        return self.training.micro_batch * m.heads / self._tp * m.sequence**2

    def _attention_forward(self) -> list[Kernel]:
        m = self.model
        scores, head = self.attention_scores, m.hidden // m.heads
        if m.flash_attention:  # causal: half of the blocks are skipped; scores never leave the chip
            return [Kernel(2 * scores * head, 4 * BF16 * self.tokens * m.hidden / self._tp)]
        return [
            Kernel(2 * scores * head, BF16 * scores),  # query x key
            Kernel(0, 2 * BF16 * scores),  # scale, mask, softmax
            Kernel(2 * scores * head, BF16 * scores),  # probabilities x value
        ]

    def _attention_backward(self) -> list[Kernel]:
        m = self.model
        scores, head = self.attention_scores, m.hidden // m.heads
        if m.flash_attention:  # five half matrix products (FlashAttention-2, section 3.1.2)
            return [Kernel(5 * scores * head, 8 * BF16 * self.tokens * m.hidden / self._tp)]
        product = Kernel(2 * scores * head, BF16 * scores)
        return [product, product, Kernel(0, 3 * BF16 * scores), product, product]

    def _elementwise(self) -> list[Kernel]:
        """Norms, rotary embedding, residuals and activation function of one layer, forward."""
        m, t = self.model, self.tokens
        norm = Kernel(0, 2 * BF16 * t * m.hidden)
        residual = Kernel(0, 3 * BF16 * t * m.hidden)
        rotary = Kernel(0, 2 * BF16 * t * m.hidden / self._tp, 2)
        expand = Kernel(0, 2 * BF16 * t * m.hidden / self._tp, 2)
        activation = Kernel(0, (5 if m.swiglu else 2) * BF16 * t * m.ffn_hidden / self._tp, 2)
        return [norm, rotary, expand, residual, norm, activation, residual]

    def layer_forward(self) -> list[Kernel]:
        """Kernels of one layer's forward."""
        return [*self._layer_linears(), *self._attention_forward(), *self._elementwise()]

    def layer_backward(self) -> list[Kernel]:
        """Without recomputation: two matrix products per linear, twice the element-wise traffic."""
        return [*self._layer_linears() * 2, *self._attention_backward(), *self._elementwise() * 2]

    def head_forward(self) -> list[Kernel]:
        """Final norm, logits, and the loss in fp32: conversion, maximum, shift, exponential, sum, quotient."""
        logits = self.logits
        loss = [Kernel(0, (BF16 + FP32) * logits), *[Kernel(0, 2 * FP32 * logits)] * 3, *[Kernel(0, FP32 * logits)] * 2]
        return [self._linear(self.model.hidden, self.model.vocab / self._tp), *loss]

    def head_backward(self) -> list[Kernel]:
        """Gradients of the loss in fp32, then of logits, head and hidden states."""
        logits = self.logits
        loss = [Kernel(0, 2 * FP32 * logits), Kernel(0, (BF16 + FP32) * logits)]
        return [*[self._linear(self.model.hidden, self.model.vocab / self._tp)] * 2, *loss]

    def embedding_kernels(self) -> list[Kernel]:
        """Look-up, or its gradient: one hidden state read and written."""
        return [Kernel(0, 2 * BF16 * self.tokens * self.model.hidden)]

    def model_flops(self, forwards: int = 3) -> float:
        """FLOPs of forward and backward of one micro-batch on one rank, whatever the kernels do.

        6 per token and matrix parameter, and 12 x layers x hidden x sequence per token for attention, without
        recomputation (PaLM, appendix B): as much as three forward passes, or as many as there are.
        """
        m = self.model
        matrices = m.layers * (self.layer_elements - 2 * m.hidden) + self.vocab_elements
        attention = 2 * m.layers * m.hidden * m.sequence / self._tp
        return 2 * forwards * self.tokens * (matrices + attention)

    # Bytes of activations on a rank.

    @property
    def logits(self) -> float:
        """Elements of the logits of a micro-batch on a rank."""
        return self.tokens * self.model.vocab / self._tp

    @property
    def logits_held(self) -> float:
        """Elements of the logits that exist at once: a fused loss makes them in parts."""
        return self.logits / self.training.loss_chunks

    @property
    def hidden_bytes(self) -> float:
        """One hidden state of a micro-batch in bf16: what checkpointing keeps of a layer."""
        return BF16 * self.tokens * self.model.hidden

    @cached_property
    def scores(self) -> Scores:
        """What attention holds of its matrices; a fused kernel never stores them."""
        return Scores.of(self.model)

    @property
    def score_buffer_bytes(self) -> float:
        """The static buffer that Megatron-LM's attention multiplies queries by keys with."""
        return self.scores.buffer * self.attention_scores

    @property
    def _attention_tensors(self) -> list[float]:
        """Elements (of 2 bytes) that attention keeps: its norm's input and output; query, key, value, context."""
        m = self.model
        whole, split = self.tokens * m.hidden, self.tokens * m.hidden / self._tp
        # Without a fused kernel, each key-value head is repeated for its query heads.
        keys = self.tokens * self.kv_hidden / self._tp if m.flash_attention else split
        mask = [whole / BF16] if m.dropout else []
        return [whole] * 2 + [split, keys, keys, split] + mask

    @property
    def _mlp_tensors(self) -> list[float]:
        """Elements (of 2 bytes) that the MLP keeps: its norm's input and output; projections, activation, product."""
        m = self.model
        whole, wide = self.tokens * m.hidden, self.tokens * m.ffn_hidden / self._tp
        mask = [whole / BF16] if m.dropout else []
        swiglu = 3 if m.fused_swiglu else 4  # a fused kernel computes the activation of the gate again
        return [whole] * 2 + [wide] * (swiglu if m.swiglu else 2) + mask

    @property
    def layer_tensors(self) -> list[float]:
        """Elements (of 2 bytes) of each tensor that one layer keeps for its backward when nothing is recomputed.

        Korthikanti et al. 2022, equations 1 and 2: with dropout, a GELU and heads of their own for keys and values,
        together tokens x hidden x (10 + 24 / t) bytes and 5 bytes for each element of the attention matrices.
        """
        scores = [nbytes / BF16 * self.attention_scores for nbytes in self.scores.kept]
        return [*self._attention_tensors, *self._mlp_tensors, *scores]

    @cached_property
    def layer_activation_bytes(self) -> float:
        """What one layer keeps for its backward when nothing is recomputed."""
        return BF16 * sum(self.layer_tensors)

    @cached_property
    def layer_forward_bytes(self) -> float:
        """The most that a layer's forward holds at once: in attention with the scores, or at its end."""
        attention = BF16 * sum(self._attention_tensors) + self.scores.forward * self.attention_scores
        return max(attention, self.layer_activation_bytes)

    @cached_property
    def layer_backward_bytes(self) -> float:
        """The most that a layer's backward holds at once, from all that the layer keeps on.

        In the MLP all of that, with the gradients of its projections (in their place if SwiGLU is fused: with that of
        its result); then in attention what that keeps, the gradients of its matrices and of context and values. The
        residual's gradient takes the place of the last layer's output.
        """
        m = self.model
        split = self.tokens * m.hidden / self._tp
        attention = BF16 * (sum(self._attention_tensors) + 2 * split) + self.scores.backward * self.attention_scores
        mlp = self._projections / (2 if m.swiglu and m.fused_swiglu else 1)
        return max(self.layer_activation_bytes + mlp, attention)

    @cached_property
    def layer_flush_bytes(self) -> float:
        """What a layer holds in backward when the up projection's gradient, the largest, has been computed.

        What attention keeps; the MLP's norm's input and output, the gradients of projections and weights.
        """
        m = self.model
        weights = BF16 * (2 if m.swiglu else 1) * m.hidden * m.ffn_hidden / self._tp
        kept = BF16 * sum(self._attention_tensors) + sum(self.scores.kept) * self.attention_scores
        return kept + self._projections + 2 * self.hidden_bytes + weights

    @property
    def _projections(self) -> float:
        """Bytes of the up projections' results, and of their gradients."""
        return BF16 * (2 if self.model.swiglu else 1) * self.tokens * self.model.ffn_hidden / self._tp
