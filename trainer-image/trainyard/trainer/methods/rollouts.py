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

from trainyard.trainer.methods import state
from trainyard.trainer.methods.objective import Interrupted
from trainyard.trainer.signals import STOP


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
        with torch.no_grad(), autocast():
            for start in range(0, len(prompts), batch_size):
                chunk = prompts[start : start + batch_size]
                parts.append(_sample_batch(model, chunk, length, temperature, end_ids, padding_id, device))
    finally:
        model.train(was_training)
        state.restore_generators(before)
    return _join(parts, padding_id)


def _sample_batch(
    model: Any,
    prompts: list[NDArray[np.int64]],
    length: int,
    temperature: float,
    end_ids: torch.Tensor,
    padding_id: int,
    device: str,
) -> Responses:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), padding_id)
    attended = torch.zeros((len(prompts), longest), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        attended[row, longest - len(prompt) :] = 1
    ids, attended = ids.to(device), attended.to(device)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    cache, fresh = None, ids
    for _ in range(length):
        if STOP.requested:
            raise Interrupted
        positions = (attended.cumsum(dim=1) - 1).clamp(min=0)[:, -fresh.shape[1] :]
        output = model(
            input_ids=fresh,
            attention_mask=attended,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        chances = torch.softmax(output.logits[:, -1].float() / temperature, dim=-1)
        fresh = torch.multinomial(chances, 1)
        fresh[ended] = padding_id
        ids = torch.cat([ids, fresh], dim=1)
        attended = torch.cat([attended, (~ended).long()[:, None]], dim=1)
        ended = ended | torch.isin(fresh[:, 0], end_ids)
        if bool(ended.all()):
            break
    return Responses(ids.cpu(), attended.cpu(), attended[:, longest:].bool().cpu(), ended.cpu())


def _join(parts: list[Responses], padding_id: int) -> Responses:
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
