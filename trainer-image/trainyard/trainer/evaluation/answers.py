"""Having the model answer held-out questions: greedily, with a KV cache, in batches of prompts of about one length.

A question is a record's last answer that counts, and all that stands before it. Nothing is drawn: the same model says the same.
Prompts are padded on the left, so that all of a batch go on at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import end_tokens
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.models.greedy import greedy

TIMED = 16
"""Questions that are asked one by one for the latency."""


@dataclass(frozen=True)
class Question:
    """Number of the example, what the model is given, and what it should say."""

    example: int
    prompt: NDArray[np.int64]
    reference: NDArray[np.int64]


def questions(sequences: Sequences, *, max_length: int, ends: Sequence[int], most: int) -> list[Question]:
    """Of at most so many examples, evenly spread. One whose answer was cut at maxLength is none, because nobody knows how it
    goes on."""
    found = []
    for number in range(len(sequences.starts) - 1):
        ids, counts = sequences.example(number)
        if counts is None or not counts.any() or (len(ids) >= max_length and ids[-1] not in ends):
            continue
        last = int(np.flatnonzero(counts)[-1]) + 1
        before = np.flatnonzero(~counts[:last])
        first = int(before[-1]) + 1 if len(before) else 0
        if first:
            found.append(Question(number, ids[:first], ids[first:last]))
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).astype(int)]
    return found


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """All tokens that end an answer: those of the tokenizer, and what the model says of itself."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    own = own if isinstance(own, list) else [] if own is None else [own]
    return sorted({*end_tokens(tokenizer), *own})


@dataclass(frozen=True)
class Voice:
    """A model that answers, with what it needs for that."""

    model: Any
    tokenizer: Any
    device: str
    dtype: torch.dtype
    max_new_tokens: int

    def answers(self, asked: Sequence[Question], *, batch_size: int, progress: Callable[[int, int], None]) -> list[str]:
        """In the order of the questions. `progress` is told how many of how many are answered."""
        order = sorted(range(len(asked)), key=lambda n: (len(asked[n].prompt), n))
        said = [""] * len(asked)
        for start in range(0, len(order), batch_size):
            together = order[start : start + batch_size]
            for number, ids in zip(together, self._generate([asked[n].prompt for n in together]), strict=True):
                said[number] = self.text(ids)
            progress(start + len(together), len(order))
        return said

    def seconds(self, asked: Sequence[Question]) -> list[float]:
        """How long each of a few takes by itself; the first one is asked once more before, to warm up."""
        chosen = asked[:TIMED]
        if chosen:
            self._generate([chosen[0].prompt])
        taken = []
        for question in chosen:
            started = time.perf_counter()
            self._generate([question.prompt])  # ids come back to the host, so the device has finished
            taken.append(time.perf_counter() - started)
        return taken

    def text(self, ids: Any) -> str:
        """Tokens as people read them."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _generate(self, prompts: Sequence[NDArray[np.int64]]) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        ends = ends_of(self.model, self.tokenizer)
        how = greedy(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        computed = torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32)
        try:
            with torch.no_grad(), computed:
                output = self.model.generate(
                    input_ids=ids.to(self.device), attention_mask=mask.to(self.device), generation_config=how
                )
        except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
            raise invalid_config(
                f"the model cannot answer: {first_line(error)}",
                hint="take exactMatch, commandAccuracy and latencyP50Seconds out of spec.evaluation",
            ) from error
        return [_until(row, ends) for row in output[:, longest:].tolist()]


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    end = next((n for n, one in enumerate(ids) if one in ends), len(ids))
    return ids[:end]
