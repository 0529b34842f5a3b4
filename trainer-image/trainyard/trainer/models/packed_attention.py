"""Attention within the examples of a packed sequence, on a CPU.

A packed sequence holds many short examples, none of which sees another. With a mask that says so, the machine still computes
every position against every other one: for 1,024 tokens in ten examples ten times what is needed. Here the examples are cut out,
those of about the same length side by side, and attended to without a mask; what pads the shorter ones stands behind them,
where a causal attention never looks.

    positions [rows, 1024]  ->  slots: [examples, length] of each group, one behind the other  ->  attention  ->  positions
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        groups: examples and slots an example of each group.
        slots: for each slot of each group the position whose values it holds, counted over all rows; a padded one holds its
            example's last.
        padded: the slots of each group that hold no position of their own.
        places: for each position its slot, counted over all groups.
    """

    groups: tuple[tuple[int, int], ...]
    slots: tuple[torch.Tensor, ...]
    padded: tuple[torch.Tensor, ...]
    places: torch.Tensor


class _Attended(torch.autograd.Function):
    """Attention of query [rows, heads, positions, size] to key and value, which may have fewer heads; the result is [rows, positions,
    heads, size].

    Kept for the way back are these four as they lie in their rows, which their neighbours keep as well, and one number a slot and
    head. Slots, and heads once for each query that shares them, are there for a moment only.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan, scale: float | None
    ) -> torch.Tensor:
        found = [
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
            for q, k, v in _in_groups(plan, query.shape[1], query, key, value)
        ]
        result = _in_rows(plan, [attended for attended, _ in found]).view(*query.transpose(1, 2).shape)
        ctx.save_for_backward(query, key, value, result, *(sizes for _, sizes in found))
        ctx.plan, ctx.scale = plan, scale
        return result

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        query, key, value, result, *sizes = ctx.saved_tensors
        plan, heads = ctx.plan, query.shape[1]
        gradients = []
        groups = _in_groups(plan, heads, outer[0].transpose(1, 2), query, key, value, result.transpose(1, 2))
        for (given, q, k, v, attended), size, blank in zip(groups, sizes, plan.padded, strict=True):
            given.transpose(1, 2).flatten(0, 1).index_fill_(0, blank, 0)
            gradients.append(
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    given, q, k, v, attended, size, 0.0, True, scale=ctx.scale
                )
            )
        found = []
        for of_groups, x in zip(zip(*gradients, strict=True), (query, key, value), strict=True):
            of_rows = _in_rows(plan, of_groups).view(x.shape[0], x.shape[2], x.shape[1], heads // x.shape[1], -1)
            found.append((of_rows.sum(3) if x.shape[1] < heads else of_rows.squeeze(3)).transpose(1, 2))
        return *found, None, None


def _in_groups(plan: Plan, heads: int, *tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors [rows, heads or fewer, positions, size] as [examples, heads, length, size], for each group."""
    rows = [x.transpose(1, 2).flatten(0, 1) for x in tensors]
    for slots, (number, length) in zip(plan.slots, plan.groups, strict=True):
        parts = (x.index_select(0, slots).view(number, length, *x.shape[1:]).transpose(1, 2) for x in rows)
        yield [part if part.shape[1] == heads else repeat_kv(part, heads // part.shape[1]) for part in parts]


def _in_rows(plan: Plan, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """The other way: [examples, heads, length, size] of each group as [all positions, heads, size]."""
    slots = [group.transpose(1, 2).flatten(0, 1) for group in groups]
    return (torch.cat(slots) if len(slots) > 1 else slots[0]).index_select(0, plan.places)


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
    own = dropout or named.get("position_bias") is not None or "cache" in named
    plan = None if own else _plan_for(attention_mask, query, key, value)
    if plan is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return found
    attended: torch.Tensor = _Attended.apply(query, key, value, plan, scaling)
    return attended, None


def _plan_for(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Plan | None:
    if (
        mask is None
        or mask.dtype != torch.bool
        or mask.device.type != "cpu"
        or mask.shape != (query.shape[0], 1, query.shape[2], query.shape[2])
        or key.shape[2] != query.shape[2]
        or query.shape[1] % key.shape[1]
        or not query.dtype == key.dtype == value.dtype
        or not query.shape[3] == key.shape[3] == value.shape[3]
    ):
        return None
    if mask not in _plans:
        _plans[mask] = plan_of(mask[:, 0])
    plan: Plan | None = _plans[mask]
    return plan


def plan_of(mask: torch.Tensor) -> Plan | None:
    """Of a mask [rows, positions, positions] under which examples lie side by side and each attends causally within itself.
    None for every other mask, and where the slots would be more work than the rows are."""
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
    return plan if work <= rows * length**2 else None


def _in_slots(begins: Sequence[int], lengths: Sequence[int]) -> Plan:
    groups: dict[int, list[tuple[int, int]]] = {}
    for begin, length in zip(begins, lengths, strict=True):
        groups.setdefault(-(-length // STEP), []).append((begin, length))
    slots: list[torch.Tensor] = []
    padded: list[torch.Tensor] = []
    sizes = []
    places = torch.empty(sum(lengths), dtype=torch.int64)
    used = 0
    for _, members in sorted(groups.items()):
        begin, length = torch.tensor(members).T[:, :, None]
        slot = torch.arange(longest := int(length.max()))
        where, real = begin + slot.minimum(length - 1), slot < length
        places[where[real]] = used + real.flatten().nonzero().squeeze(1)
        slots.append(where.flatten())
        padded.append((~real).flatten().nonzero().squeeze(1))
        sizes.append((len(members), longest))
        used += real.numel()
    return Plan(tuple(sizes), tuple(slots), tuple(padded), places)
