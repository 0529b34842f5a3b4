"""The network: embed once, think in circles, read the answer off.

Two latent tensors are refined by one and the same small network f: `z_l`, the scratch pad, and `z_h`, the answer so far.

    f(h, given):      h <- h + given;  for each layer: h <- norm(h + mix(h)); h <- norm(h + mlp(h))
    one recursion:    l_cycles times z_l <- f(z_l, z_h + x);  then z_h <- f(z_h, z_l)
    one step:         h_cycles recursions, of which only the last one is differentiated

The formulas are those of "Less is More: Recursive Reasoning with Tiny Networks" (2025). The layout is not: positions come
first, then examples, then features. Mixing over positions and over features are then both one plain matrix product on
contiguous memory, nothing is ever transposed, and the sequence behind the registers is a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainyard.trainer.trm.kernels import gated_block, residual_norm
from trainyard.trainer.trm.shape import Shape

HALTING_BIAS = -5.0
"""At the beginning no example is believed to be solved."""


class Latent(NamedTuple):
    """The state that is carried from one supervision step to the next, both [positions, examples, features]."""

    h: Tensor
    z: Tensor


@dataclass(frozen=True)
class Depth:
    """How often the network is applied in one supervision step."""

    h_cycles: int
    l_cycles: int


class Layer(nn.Module):
    """Weights of one layer; what is done with them is in `Network`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.hidden_size
        if shape.mixer == "Attention":
            self.qkv = _matrix(3 * d, d)
            self.out = _matrix(d, d)
        else:
            width = shape.positions
            self.mix_in = _matrix(2 * shape.inner(width), width)
            self.mix_out = _matrix(width, shape.inner(width))
        self.mlp_in = _matrix(2 * shape.inner(d), d)
        self.mlp_out = _matrix(d, shape.inner(d))


class Network(nn.Module):
    """A Tiny Recursive Model.

    `puzzle_embedding` is a buffer and no parameter: its rows are trained by an optimizer of their own, and a step touches
    only those of the examples it has seen.
    """

    puzzle_embedding: Tensor
    start_h: Tensor
    start_z: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        d = shape.hidden_size
        self.token_embedding = nn.Parameter(truncated_normal((shape.vocab_size, d), 1 / math.sqrt(d)))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.l_layers))
        self.head = _matrix(shape.vocab_size, d)
        self.halting_weight = nn.Parameter(torch.zeros(2, d))
        self.halting_bias = nn.Parameter(torch.full((2,), HALTING_BIAS))
        self.register_buffer("puzzle_embedding", torch.zeros(shape.puzzles, d))
        self.register_buffer("start_h", truncated_normal((d,), 1.0))
        self.register_buffer("start_z", truncated_normal((d,), 1.0))
        cosine, sine = _rotations(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def start(self, examples: int) -> Latent:
        """Fresh latents."""
        size = (self.shape.positions, examples, self.shape.hidden_size)
        return Latent(
            self.start_h.to(self.dtype).expand(size).contiguous(), self.start_z.to(self.dtype).expand(size).contiguous()
        )

    def weights(self) -> list[dict[str, Tensor]]:
        """The layers' weights in the type that is computed in, cast once per step instead of once per use."""
        return [{name: w.to(self.dtype) for name, w in layer.named_parameters()} for layer in self.layers]

    def embed(self, tokens: Tensor, puzzles: Tensor) -> Tensor:
        """x of a step.

        Args:
            tokens: [examples, sequence] ids.
            puzzles: [examples, features], the rows of the puzzle embedding.
        """
        scale = math.sqrt(self.shape.hidden_size)
        embedded = F.embedding(tokens.t(), self.token_embedding)
        if not self.shape.registers:
            return (scale * embedded).to(self.dtype)
        silent = embedded.new_zeros(self.shape.registers - 1, *embedded.shape[1:])
        return (scale * torch.cat((puzzles.unsqueeze(0), silent, embedded))).to(self.dtype)

    def step(
        self,
        latent: Latent,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        depth: Depth | None = None,
        weights: Sequence[dict[str, Tensor]] | None = None,
    ) -> tuple[Latent, Tensor, Tensor]:
        """One supervision step.

        Args:
            latent: where the examples stand.
            x: from `embed`.
            mask: [examples, 1, 1, positions], True where a position may be looked at; None if all may.
            depth: cycles other than the shape's own.
            weights: from `weights`, to share one cast among several calls.

        Returns:
            The new latent (with its history), logits [sequence, examples, vocabulary], halting logits [examples, 2].
        """
        depth = depth or Depth(self.shape.h_cycles, self.shape.l_cycles)
        weights = self.weights() if weights is None else weights
        h, z = latent
        with torch.no_grad():
            for _ in range(depth.h_cycles - 1):
                h, z = self._recursion(h, z, x, mask, depth, weights)
        h, z = self._recursion(h, z, x, mask, depth, weights)
        logits = F.linear(h[self.shape.registers :], self.head.to(self.dtype))
        halting = F.linear(h[0].to(self.halting_weight.dtype), self.halting_weight, self.halting_bias)
        return Latent(h, z), logits, halting

    def _recursion(
        self,
        h: Tensor,
        z: Tensor,
        x: Tensor,
        mask: Tensor | None,
        depth: Depth,
        weights: Sequence[dict[str, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        given = h + x  # h does not change meanwhile
        for _ in range(depth.l_cycles):
            z = self._think(z, given, mask, weights)
        return self._think(h, z, mask, weights), z

    def _think(self, h: Tensor, given: Tensor, mask: Tensor | None, weights: Sequence[dict[str, Tensor]]) -> Tensor:
        h = h + given
        epsilon = self.shape.norm_epsilon
        for w in weights:
            if "qkv" in w:
                h = residual_norm(h, self._attend(h, w, mask), dim=-1, epsilon=epsilon)
            else:
                h = gated_block(h.flatten(1), w["mix_in"], w["mix_out"], dim=0, epsilon=epsilon).view_as(h)
            h = gated_block(h.flatten(0, 1), w["mlp_in"], w["mlp_out"], dim=-1, epsilon=epsilon).view_as(h)
        return h

    def _attend(self, h: Tensor, w: dict[str, Tensor], mask: Tensor | None) -> Tensor:
        positions, examples, d = h.shape
        heads = self.shape.num_heads
        qkv = F.linear(h, w["qkv"]).view(positions, examples, 3, heads, d // heads)
        qk = self._rotate(qkv[:, :, :2])
        q, k, v = (t.permute(1, 2, 0, 3) for t in (qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return F.linear(seen.permute(2, 0, 1, 3).reshape(positions, examples, d), w["out"])

    def _rotate(self, qk: Tensor) -> Tensor:
        """Rotary positions on queries and keys at once; [positions, examples, 2, heads, features of a head]."""
        first, second = qk.chunk(2, -1)
        cosine, sine = self.cosine, self.sine
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(qk.dtype)


def truncated_normal(size: tuple[int, ...], std: float) -> Tensor:
    """A normal distribution cut at two of its own deviations and stretched so that what is left has deviation `std`."""
    left = math.sqrt(1 - 4 * math.exp(-2) / (math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))))
    return nn.init.trunc_normal_(torch.empty(size), std=std / left, a=-2 * std / left, b=2 * std / left)


def _matrix(outputs: int, inputs: int) -> nn.Parameter:
    return nn.Parameter(truncated_normal((outputs, inputs), 1 / math.sqrt(inputs)))


def _rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [positions, 1, 1, 1, half of a head], computed once."""
    half = shape.hidden_size // shape.num_heads // 2
    rates = shape.rope_theta ** -(torch.arange(half, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(shape.positions, dtype=torch.float32), rates)[:, None, None, None, :]
    return angles.cos(), angles.sin()
