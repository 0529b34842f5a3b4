"""Responses to prompts, and what has to be known of each of their tokens before anything is learned from them.

Prompts are padded on the left and responses on the right, so that in a batch every response begins at the same position:

    [ . . prompt prompt ][ response response end . . ]

Sampling draws from generators that are seeded for the occasion and put back afterwards. So the responses of an iteration
depend on the weights, the seed and the iteration's number alone, and are the same when they are made again after a restart.
A stop signal is seen at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.trainer.machine.device import available_host_memory
from trainyard.trainer.methods import state
from trainyard.trainer.methods.growing_cache import can_select, growing_cache
from trainyard.trainer.methods.objective import Interrupted
from trainyard.trainer.models.packed_linear import packed
from trainyard.trainer.signals import STOP

LEAVING = 0.75
"""Those that have come to an end leave the batch when so much of it or less is still being written."""


@dataclass(frozen=True)
class Responses:
    """Tokens of prompts and responses. All tensors are on the CPU."""

    input_ids: torch.Tensor
    """int64 [responses, prompt + response]."""
    attention_mask: torch.Tensor
    """int64, the same shape: 1 for real tokens."""
    mask: torch.Tensor
    """bool [responses, response]: real tokens of the response, its end included."""
    ended: torch.Tensor
    """bool [responses]: whether the response came to an end by itself."""

    @property
    def length(self) -> int:
        """Positions of the response part."""
        return int(self.mask.shape[1])

    def rows(self, index: Any) -> Responses:
        """Some of them, without the columns that are empty in all of these."""
        part = Responses(**{field.name: getattr(self, field.name)[index] for field in fields(Responses)})
        prompt = part.attention_mask.shape[1] - part.length
        first = prompt - int(part.attention_mask[:, :prompt].sum(dim=1).max())
        last = prompt + int(part.mask.sum(dim=1).max())
        return Responses(
            part.input_ids[:, first:last], part.attention_mask[:, first:last], part.mask[:, : last - prompt], part.ended
        )


def sample(
    model: Any,
    prompts: list[NDArray[np.int64]],
    *,
    length: int,
    temperature: float,
    ends: Iterable[int],
    padding_id: int,
    batch_size: int,
    device: str,
    autocast: Callable[[], AbstractContextManager[Any]],
    seed: list[int],
) -> Responses:
    """One response of up to `length` tokens for each prompt.

    Raises:
        Interrupted: a stop signal came in.
    """
    before = state.read_generators()
    was_training = model.training
    model.eval()
    end_ids = torch.tensor(sorted(set(ends)), device=device)
    try:
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        parts = []
        with torch.no_grad(), autocast(), packed(model, available=available_host_memory()):
            for start in range(0, len(prompts), batch_size):
                chunk = prompts[start : start + batch_size]
                parts.append(_sample_batch(model, chunk, length, temperature, end_ids, padding_id, device))
    finally:
        model.train(was_training)
        state.restore_generators(before)
    return joined(parts, padding_id)


def _sample_batch(
    model: Any,
    prompts: list[NDArray[np.int64]],
    length: int,
    temperature: float,
    end_ids: torch.Tensor,
    padding_id: int,
    device: str,
) -> Responses:
    """A prompt that stands there several times is read once, and who has come to an end leaves the batch."""
    different = list({prompt.tobytes(): prompt for prompt in prompts}.values())
    number = {prompt.tobytes(): row for row, prompt in enumerate(different)}
    rows = torch.tensor([number[prompt.tobytes()] for prompt in prompts], device=device)
    ids, attended = _left_padded(different, padding_id, device)
    longest = ids.shape[1]
    cache = growing_cache(model, room=longest + length)
    if not can_select(cache):
        ids, attended, rows = ids[rows], attended[rows], torch.arange(len(prompts), device=device)
    told = torch.full((len(prompts), length), padding_id, device=device)
    mask = torch.zeros((len(prompts), length), dtype=torch.bool, device=device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    there = torch.arange(len(prompts), device=device)
    """Which of the responses each row of the batch is."""
    lengths = attended.sum(dim=1)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": attended,
        "position_ids": (attended.cumsum(dim=1) - 1).clamp(min=0),
    }
    for step in range(length):
        if STOP.requested:
            raise Interrupted
        logits = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        fresh = _drawn((logits[rows] if step == 0 else logits).float() / temperature)
        open_ = ~ended[there]
        mask[there, step] = open_
        told[there, step] = torch.where(open_, fresh[:, 0], padding_id)
        ended[there] |= torch.isin(fresh[:, 0], end_ids)
        if step + 1 == length or bool(ended.all()):
            break
        if step == 0 and len(different) < len(prompts) and can_select(cache):
            cache.batch_select_indices(rows)
            attended, lengths = attended[rows], lengths[rows]
        going = ~ended[there]
        if can_select(cache) and int(going.sum()) <= LEAVING * len(there):
            cache.batch_select_indices(going.nonzero()[:, 0])
            there, attended, lengths, fresh = there[going], attended[going], lengths[going], fresh[going]
        attended = torch.nn.functional.pad(attended, (0, 1), value=1)
        padded = bool((lengths < longest).any())
        inputs = {
            "input_ids": fresh,
            "attention_mask": attended if padded else None,
            "position_ids": (lengths + step)[:, None],
        }
    used = int(mask.any(dim=0).sum())
    told, mask = told[:, :used], mask[:, :used]
    before, prompt_mask = _left_padded(prompts, padding_id, device)
    ids = torch.cat([before, told], dim=1)
    return Responses(ids.cpu(), torch.cat([prompt_mask, mask.long()], dim=1).cpu(), mask.cpu(), ended.cpu())


def _drawn(logits: torch.Tensor) -> torch.Tensor:
    """A token of each distribution, [rows, 1]: where the sum of the probabilities passes a random number. One number a row costs
    less than one for each entry of the vocabulary, which `torch.multinomial` draws."""
    sums = torch.softmax(logits, dim=-1).cumsum(dim=-1, dtype=torch.float64)
    passed = torch.rand(len(sums), 1, dtype=torch.float64, device=sums.device) * sums[:, -1:]
    return torch.searchsorted(sums, passed, right=True).clamp(max=sums.shape[-1] - 1)


def _left_padded(prompts: list[NDArray[np.int64]], padding_id: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, [prompts, longest]."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), padding_id)
    attended = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        attended[row, longest - len(prompt) :] = 1
    return ids.to(device), attended.to(device)


def joined(parts: list[Responses], padding_id: int) -> Responses:
    """One table: prompts end, and responses begin, at the same column."""
    prompt = max(part.attention_mask.shape[1] - part.length for part in parts)
    length = max(part.length for part in parts)

    def widened(part: Responses, tensor: torch.Tensor, value: int) -> torch.Tensor:
        left = prompt - (part.attention_mask.shape[1] - part.length)
        return torch.nn.functional.pad(tensor, (left, length - part.length), value=value)

    return Responses(
        torch.cat([widened(part, part.input_ids, padding_id) for part in parts]),
        torch.cat([widened(part, part.attention_mask, 0) for part in parts]),
        torch.cat([torch.nn.functional.pad(part.mask, (0, length - part.length)) for part in parts]),
        torch.cat([part.ended for part in parts]),
    )


def forward(model: Any, responses: Responses, *, temperature: float, values: Any = None) -> tuple[torch.Tensor, ...]:
    """Run a model over prompts with their responses.

    Returns:
        Log-probabilities of the response's tokens, [responses, length] in FP32; entropy of the distributions they were drawn
        from, the same shape, without gradient; and, if `values` is the value head, the value before each of these tokens.
    """
    length = responses.length
    output = model(
        input_ids=responses.input_ids,
        attention_mask=responses.attention_mask,
        position_ids=(responses.attention_mask.cumsum(dim=1) - 1).clamp(min=0),
        output_hidden_states=values is not None,
        logits_to_keep=length + 1,
        use_cache=False,
    )
    distributions = torch.log_softmax(output.logits[:, -length - 1 : -1].float() / temperature, dim=-1)
    tokens = responses.input_ids[:, -length:, None]
    log_probs = distributions.gather(-1, tokens).squeeze(-1)
    with torch.no_grad():
        entropy = -(distributions.exp() * distributions).sum(dim=-1)
    if values is None:
        return log_probs, entropy
    return log_probs, entropy, values(output.hidden_states[-1][:, -length - 1 : -1])
