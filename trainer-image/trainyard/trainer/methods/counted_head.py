"""The output head over the positions that count, and over no others.

    decoder  ->  hidden states of the counted positions [counted, hidden]  ->  their log-probabilities [counted]

Half of what a chat model reads is a prompt, whose labels are ignored, and with a vocabulary of a quarter of a million entries the
head is most of the arithmetic. A hook on the head picks the positions, so that a model's own forward pass stays what it is:
whatever it does with logits (a cap, a scale) it does with these. On a CPU the logits are never held as a whole either: they
are made in tiles, and each tile leaves its part of the gradient before the next one is made, three matrix products in all
where going back over tiles takes four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

TILE_BYTES = 128 * 1024 * 1024
"""Logits of a tile at most."""
TILE_ROWS = 256
"""Positions of a tile at most: enough that reading the head's weights costs less than multiplying with them."""
_CHANGED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""What architectures do to logits after the head, by the names in their configurations."""


def is_plain(model: Any) -> bool:
    """Whether the model's logits are what its head makes, with nothing done to them afterwards."""
    config = _alone(model).config.get_text_config()
    return type(head_of(model)) is torch.nn.Linear and all(getattr(config, name, None) is None for name in _CHANGED)


def goes_in_tiles(model: Any) -> bool:
    """Whether `tiled_log_probs` can stand for the model's head: a plain one, in FP32 on a CPU."""
    weight = head_of(model).weight
    return (
        is_plain(model)
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def head_of(model: Any) -> Any:
    """The output head."""
    return _alone(model).get_output_embeddings()


def logits_of(model: Any, inputs: dict[str, Any], counted: torch.Tensor) -> torch.Tensor:
    """The model's logits at the positions where `counted` [rows, positions] is true, [counted, vocabulary]."""
    with _head(model, lambda hidden: hidden[counted][None] if hidden.shape[:2] == counted.shape else hidden):
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits[counted] if logits.shape[:2] == counted.shape else logits[0]


def hidden_of(model: Any, inputs: dict[str, Any], counted: torch.Tensor) -> torch.Tensor:
    """What the head would get at the positions where `counted` [rows, positions] is true, [counted, hidden]."""
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(hidden)
        return hidden[:, :1]  # the model makes logits of one position, which nobody looks at

    with _head(model, keep):
        model(**inputs, use_cache=False)
    return kept[0][counted]


def tiled_log_probs(
    model: Any, inputs: dict[str, Any], counted: torch.Tensor, targets: torch.Tensor, *, uniform: bool
) -> torch.Tensor:
    """Log-probabilities of `targets` [counted] where `counted` is true.

    Args:
        uniform: all of them have the same gradient, as in a sum; then that of the head's weights costs one product less.
    """
    head = head_of(model)
    found: torch.Tensor = _LogProbs.apply(hidden_of(model, inputs, counted), head.weight, head.bias, targets, uniform)
    return found


def _alone(model: Any) -> Any:
    """Without what several processes have around it."""
    return getattr(model, "module", model)


@contextmanager
def _head(model: Any, change: Any) -> Iterator[None]:
    hook = head_of(model).register_forward_pre_hook(lambda head, inputs: (change(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


class _LogProbs(torch.autograd.Function):
    """log softmax(hidden weight^T + bias) at the targets. What is kept for the way back is gradients, not logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        uniform: bool,
    ) -> torch.Tensor:
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        result, sizes = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        of_hidden = torch.empty_like(hidden) if to_hidden else None
        of_weight = torch.zeros_like(weight) if to_weight and uniform else None
        of_bias = torch.zeros_like(bias) if to_bias and uniform and bias is not None else None
        for rows in tiles(len(hidden), len(weight)):
            part, wanted = hidden[rows], targets[rows, None]
            logits = torch.nn.functional.linear(part, weight, bias)
            largest, of_wanted = logits.amax(1), logits.gather(1, wanted).squeeze(1)
            total = logits.sub_(largest[:, None]).exp_().sum(1)
            sizes[rows] = total.log() + largest
            result[rows] = of_wanted - sizes[rows]
            if of_hidden is not None or of_weight is not None or of_bias is not None:
                slope = _slope(logits.div_(total[:, None]), wanted)
                _add(slope, part, weight, of_hidden, rows, of_weight, of_bias)
        ctx.uniform, ctx.gradients = uniform, (of_hidden, of_weight, of_bias)
        ctx.save_for_backward(*(() if uniform else (hidden, weight, bias, targets, sizes)))
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        (given,) = outer
        if ctx.gradients is None:
            raise RuntimeError("the way back can be gone once: its gradients are handed on without a copy")
        (of_hidden, of_weight, of_bias), ctx.gradients = ctx.gradients, None
        if of_hidden is not None:
            of_hidden.mul_(given[:, None])
        if ctx.uniform:
            for gradient in (of_weight, of_bias):
                if gradient is not None:
                    gradient.mul_(given[0] if len(given) else 0.0)
            return of_hidden, of_weight, of_bias, None, None
        hidden, weight, bias, targets, sizes = ctx.saved_tensors
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for rows in tiles(len(hidden), len(weight)) if of_weight is not None or of_bias is not None else ():
            part, wanted = hidden[rows], targets[rows, None]
            logits = torch.nn.functional.linear(part, weight, bias)
            slope = _slope(logits.sub_(sizes[rows, None]).exp_(), wanted)
            _add(slope.mul_(given[rows, None]), part, weight, None, rows, of_weight, of_bias)
        return of_hidden, of_weight, of_bias, None, None


def tiles(positions: int, entries: int) -> Iterator[slice]:
    """Positions by tile."""
    size = min(TILE_ROWS, max(1, TILE_BYTES // (4 * entries)))
    return (slice(start, min(start + size, positions)) for start in range(0, positions, size))


def _slope(probabilities: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """What a log-probability gains by each logit: 1 at the target, less the probability. In place of the probabilities."""
    slope = probabilities.neg_()
    return slope.scatter_add_(1, wanted, torch.ones_like(wanted, dtype=slope.dtype))


def _add(
    slope: torch.Tensor,
    part: torch.Tensor,
    weight: torch.Tensor,
    of_hidden: torch.Tensor | None,
    rows: slice,
    of_weight: torch.Tensor | None,
    of_bias: torch.Tensor | None,
) -> None:
    if of_hidden is not None:
        torch.mm(slope, weight, out=of_hidden[rows])
    if of_weight is not None:
        of_weight.addmm_(slope.T, part)
    if of_bias is not None:
        of_bias.add_(slope.sum(0))
