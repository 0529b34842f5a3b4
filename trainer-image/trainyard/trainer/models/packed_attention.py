"""Attention within the examples of a packed sequence, on a CPU.

A packed sequence holds many short examples, none of which sees another. With a mask that says so, the machine still computes
every position against every other one: for 1,024 tokens in ten examples ten times what is needed. Here the examples are cut out,
those of about the same length side by side, and attended to without a mask; what pads the shorter ones stands behind them,
where a causal attention never looks.

    positions [rows, 1024]  ->  slots: [examples, length] of each group, one behind the other  ->  attention  ->  positions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "sdpa"
STEP = 32
"""Examples whose lengths are alike when rounded up to this are attended to together."""


@dataclass(frozen=True)
class Plan:
    """How the positions of a batch lie in slots.

    Attributes:
        slots: for each slot the position whose values it holds, counted over all rows; a padded one holds the first position's.
        places: for each position its slot.
        padded: the slots that hold no position of their own.
        groups: examples and slots an example of each group.
    """

    slots: torch.Tensor
    places: torch.Tensor
    padded: torch.Tensor
    groups: tuple[tuple[int, int], ...]


class _Moved(torch.autograd.Function):
    """Rows of x [from, ...] as [to, ...]. `back` is where each one of x went; a row that went nowhere has no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, there: torch.Tensor, back: torch.Tensor, blank: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(back, blank)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        back, blank = ctx.saved_tensors
        result = outer[0].index_select(0, back)
        if len(blank):
            result.index_fill_(0, blank, 0)
        return result, None, None, None


_plans: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Of each mask that is in use: a model's layers share one."""


def quicken_attention() -> None:
    """Let `sdpa` of transformers take the quick way where it may: what a model is told to use does not change."""
    ALL_ATTENTION_FUNCTIONS[NAME] = attend


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' own: query [rows, heads, positions, size], key and value with as many heads or fewer; the result is
    [rows, positions, heads, size]."""
    plan = (
        _plan_for(attention_mask, query, key) if named.get("position_bias") is None and "cache" not in named else None
    )
    if plan is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return found
    repeats = query.shape[1] // key.shape[1]
    parts = [_in_groups(x, plan) for x in (query, repeat_kv(key, repeats), repeat_kv(value, repeats))]
    attended = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=True)
        .transpose(1, 2)
        .flatten(0, 1)
        for q, k, v in zip(*parts, strict=True)
    ]
    joined = torch.cat(attended) if len(attended) > 1 else attended[0]
    moved: torch.Tensor = _Moved.apply(joined, plan.places, plan.slots, plan.padded)
    return moved.view(query.shape[0], query.shape[2], *moved.shape[1:]), None


def _in_groups(x: torch.Tensor, plan: Plan) -> list[torch.Tensor]:
    """x [rows, heads, positions, size] as [examples, heads, length, size] for each group."""
    positions = x.transpose(1, 2).flatten(0, 1)
    slots: torch.Tensor = _Moved.apply(positions, plan.slots, plan.places, plan.padded.new_empty(0))
    parts = torch.split(slots, [number * length for number, length in plan.groups])
    return [
        part.view(number, length, *part.shape[1:]).transpose(1, 2)
        for part, (number, length) in zip(parts, plan.groups, strict=True)
    ]


def _plan_for(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> Plan | None:
    if (
        mask is None
        or mask.dtype != torch.bool
        or mask.device.type != "cpu"
        or mask.shape != (query.shape[0], 1, query.shape[2], query.shape[2])
        or key.shape[2] != query.shape[2]
        or query.shape[1] % key.shape[1]
    ):
        return None
    if mask not in _plans:
        _plans[mask] = plan_of(mask[:, 0])
    plan: Plan | None = _plans[mask]
    return plan


def plan_of(mask: torch.Tensor) -> Plan | None:
    """Of a mask [rows, positions, positions] under which examples lie side by side and each attends causally within itself.
    None for every other mask, and for examples nearly as long as their rows, where there is little to gain."""
    rows, length = mask.shape[:2]
    first = mask.to(torch.uint8).argmax(-1)  # where the example of each position begins
    position = torch.arange(length)
    wanted = (position >= first[..., None]) & (position <= position[:, None])
    starts = first == position
    goes_on = torch.nn.functional.pad(first[:, 1:] == first[:, :-1], (1, 0))  # not so where a window slides along
    if not torch.equal(mask, wanted) or not bool((starts | goes_on).all()):
        return None
    begins = starts.flatten().nonzero().squeeze(1)
    lengths = torch.diff(begins, append=begins.new_tensor([rows * length]))
    plan = _in_slots(begins.tolist(), lengths.tolist())
    work = sum(number * longest**2 for number, longest in plan.groups)
    return plan if 2 * work <= rows * length**2 else None


def _in_slots(begins: Sequence[int], lengths: Sequence[int]) -> Plan:
    groups: dict[int, list[tuple[int, int]]] = {}
    for begin, length in zip(begins, lengths, strict=True):
        groups.setdefault(-(-length // STEP), []).append((begin, length))
    slots: list[torch.Tensor] = []
    padded: list[torch.Tensor] = []
    sizes = []
    used = 0
    for _, members in sorted(groups.items()):
        longest = max(length for _, length in members)
        for begin, length in members:
            slots.append(torch.arange(begin, begin + longest).clamp_(max=begin + length - 1))
            padded.append(torch.arange(used + length, used + longest))
            used += longest
        sizes.append((len(members), longest))
    where, blank = torch.cat(slots), torch.cat(padded)
    places = torch.empty(sum(lengths), dtype=torch.int64)
    real = torch.ones(used, dtype=torch.bool)
    real[blank] = False
    places[where[real]] = real.nonzero().squeeze(1)
    return Plan(where, places, blank, tuple(sizes))
