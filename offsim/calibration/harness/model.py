"""The trained model: a decoder-only transformer with activation checkpointing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

from .device import BF16, FP32


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer: SwiGLU, rotary embedding, as many key and value heads as query heads."""

    layers: int
    hidden: int
    ffn_hidden: int
    heads: int
    vocab: int
    sequence: int

    @property
    def parameters(self) -> int:
        """Parameters, with embedding and head."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.ffn_hidden + 2 * self.hidden
        return self.layers * layer + 2 * self.vocab * self.hidden + self.hidden


def choose_shape(parameters: float, sequence: int) -> Shape:
    """Return a shape of about so many parameters: hidden size about 128 times the layers, as in published models."""
    unit, vocab = (128, 32_000) if parameters >= 1e8 else (64, 512)
    hidden = max(unit, round((parameters * 128 / 12) ** (1 / 3) / unit) * unit)
    one = Shape(1, hidden, round(8 / 3 * hidden / unit) * unit, hidden // unit, vocab, sequence)
    layer = one.parameters - 2 * vocab * hidden - hidden
    layers = max(2, round((parameters - 2 * vocab * hidden) / layer))
    return Shape(layers, hidden, one.ffn_hidden, one.heads, vocab, sequence)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=False, dtype=BF16, device=device)
        self.heads = shape.heads
        self.input_norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.query = linear(shape.hidden, shape.hidden)
        self.key_value = linear(shape.hidden, 2 * shape.hidden)
        self.attention_output = linear(shape.hidden, shape.hidden)
        self.post_attention_norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.up = linear(shape.hidden, 2 * shape.ffn_hidden)
        self.down = linear(shape.ffn_hidden, shape.hidden)
        positions = torch.arange(shape.sequence, device=device, dtype=FP32)[:, None]
        half = shape.hidden // shape.heads // 2
        angles = positions / 10_000 ** (torch.arange(half, device=device) / half)
        self.turn = (angles.cos().to(BF16), angles.sin().to(BF16))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary position embedding of (batch, heads, sequence, head)."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = self.turn
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states to hidden states."""
        batch, sequence, width = hidden.shape
        normed = self.input_norm(hidden)
        query, key, value = (
            part.view(batch, sequence, self.heads, -1).transpose(1, 2)
            for part in (self.query(normed), *self.key_value(normed).chunk(2, dim=-1))
        )
        context = functional.scaled_dot_product_attention(self.rotate(query), self.rotate(key), value, is_causal=True)
        hidden = hidden + self.attention_output(context.transpose(1, 2).reshape(batch, sequence, width))
        gate, up = self.up(self.post_attention_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up)


class Transformer(nn.Module):
    """A transformer with activation checkpointing that returns the loss of predicting the next token."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.hidden, dtype=BF16, device=device)
        self.layers = nn.ModuleList(Layer(shape, device) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False, dtype=BF16, device=device)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def pieces(self) -> list[nn.Module]:
        """Return the modules that run one after another."""
        return [self.embedding, *self.layers, self.norm, self.head]

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean loss of tokens (batch, sequence + 1)."""
        hidden = self.embedding(tokens[:, :-1])
        for index, layer in enumerate(self.layers):
            with record_function(f"layer {index}"):
                hidden = checkpoint(layer, hidden, use_reentrant=False)
        logits = self.head(self.norm(hidden)).float()
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
