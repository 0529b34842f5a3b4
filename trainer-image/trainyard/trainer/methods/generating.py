"""What methods share that learn from answers of their own: prompts in an order, responses to them, scores, probabilities.

The reference is the model as it was at the start: a frozen copy, or, with an adapter, the same model with the adapter off. Dropout
is off: old and new probabilities of a token have to differ by the update alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from trainyard.trainer.data.store import Sequences
from trainyard.trainer.methods.objective import Batch
from trainyard.trainer.methods.rewards import Judge, Response
from trainyard.trainer.methods.rollouts import Responses, forward, sample

ORDER, SAMPLING, MINI_BATCHES, HELD_OUT, RESAMPLING = 0, 1, 2, 3, 5
"""Streams of random numbers that are drawn from the run's seed."""


class Steps(Dataset[Batch]):
    """Stands in for the loader's data, which is generated: as long as `passes` over the prompts, in whole steps."""

    def __init__(self, prompts: int, *, passes: int, step_size: int) -> None:
        self._length = max(1, prompts * passes // step_size) * step_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Batch:
        return {}


class Prompts:
    """Prompts and their answers, those that leave room for a response."""

    def __init__(self, sequences: Sequences, *, room: int) -> None:
        self._sequences = sequences
        lengths = np.diff(sequences.starts)[sequences.items]
        self._fitting = np.flatnonzero(lengths <= room)
        self.left_out = len(lengths) - len(self._fitting)

    def __len__(self) -> int:
        return len(self._fitting)

    def ids(self, index: int) -> Any:
        return self._sequences[int(self._fitting[index])]["input_ids"]

    def answer(self, index: int) -> str:
        return self._sequences.answer(int(self._fitting[index]))


@dataclass(frozen=True)
class Means:
    """What responses are made and judged with. `reference` is None where it is the model with its adapter off, or where there is
    none (`compares` is False)."""

    prompts: Prompts | None
    held_out: Prompts | None
    judge: Judge
    reference: Any
    tokenizer: Any
    ends: list[int]
    micro_batch: int
    accumulation: int
    seed: int
    device: str
    dtype: torch.dtype
    length: int
    """Tokens of a response at most."""
    temperature: float
    missing_eos_penalty: float | None = None
    compares: bool = True
    """Whether there is a reference."""


class Generating:
    """See the module's text."""

    def __init__(self, means: Means) -> None:
        self.means = means

    def prompt_of(self, number: int) -> int:
        """The `number`-th prompt of the run: each pass over the prompts has a new order."""
        prompts = self.means.prompts
        assert prompts is not None
        passes, position = divmod(number, len(prompts))
        return int(self.random(ORDER, passes).permutation(len(prompts))[position])

    def respond(self, model: Any, prompts: Prompts, chosen: list[int], seed: list[int], batch_size: int) -> Responses:
        """A response to each of the chosen prompts; the same ones for the same weights and seed."""
        means = self.means
        return sample(
            model,
            [prompts.ids(index) for index in chosen],
            length=means.length,
            temperature=means.temperature,
            ends=means.ends,
            padding_id=means.tokenizer.pad_token_id,
            batch_size=batch_size,
            device=means.device,
            autocast=self.autocast,
            seed=[means.seed, *seed],
        )

    def score(self, prompts: Prompts, chosen: list[int], responses: Responses) -> tuple[torch.Tensor, dict[str, float]]:
        """Scores [responses], and their metrics."""
        judged = []
        prompt = responses.attention_mask.shape[1] - responses.length
        for row, index in enumerate(chosen):
            ids = responses.input_ids[row, prompt:][responses.mask[row]].tolist()
            ids = ids[:-1] if responses.ended[row] else ids
            text = self.means.tokenizer.decode(ids, skip_special_tokens=True)
            judged.append(Response(prompts.ids(index).tolist(), ids, text, prompts.answer(index)))
        scores, metrics = self.means.judge(judged)
        table = torch.tensor(scores, dtype=torch.float32)
        if self.means.missing_eos_penalty is not None:
            table = table - self.means.missing_eos_penalty * (~responses.ended)
        return table, metrics | {
            "objective/scores": float(table.mean()),
            "completions/mean_length": float(responses.mask.sum(dim=1).float().mean()),
            "completions/ended": float(responses.ended.float().mean()),
        }

    def measure(
        self, model: Any, responses: Responses, batch_size: int, *, head: Any = None, compares: bool = True
    ) -> tuple[torch.Tensor, ...]:
        """Log-probabilities under the model, under the reference (with `compares`), and values (with `head`), in batches; nothing
        is learned here."""
        means, was_training = self.means, model.training
        model.eval()
        parts = []
        with torch.no_grad(), self.autocast():
            for rows in torch.split(torch.arange(len(responses.ended)), batch_size):
                part = replace(
                    responses,
                    input_ids=responses.input_ids[rows].to(means.device),
                    attention_mask=responses.attention_mask[rows].to(means.device),
                )
                own = forward(model, part, temperature=means.temperature, values=head)
                found = [own[0]]
                if compares:
                    off = contextlib.nullcontext() if means.reference is not None else model.disable_adapter()
                    with off:
                        found.append(forward(means.reference or model, part, temperature=means.temperature)[0])
                parts.append([tensor.cpu() for tensor in (*found, *own[2:])])
        model.train(was_training)
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def evaluate(
        self, model: Any, *, batch_size: int, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, float]:
        """Mean score, and divergence where there is a reference, of one response to each held-out prompt. The same model gives
        the same."""
        held_out = self.means.held_out
        assert held_out is not None
        chosen = list(range(len(held_out)))
        responses = self.respond(model, held_out, chosen, [HELD_OUT], batch_size)
        progress(1, 2)
        _, metrics = self.score(held_out, chosen, responses)
        if self.means.compares:
            log_probs, reference = self.measure(model, responses, batch_size)
            metrics["objective/kl"] = float(((log_probs - reference) * responses.mask).sum(dim=1).mean())
        progress(2, 2)
        return metrics

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that is computed in."""
        dtype = self.means.dtype
        return torch.autocast(self.means.device, dtype=dtype, enabled=dtype != torch.float32)

    def random(self, *stream: int) -> np.random.Generator:
        """Numbers of a stream of the run."""
        return np.random.default_rng([self.means.seed, *stream])


def turn_off_dropout(model: Any) -> None:
    """In the layers, and in the attention functions that are given their rate."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
