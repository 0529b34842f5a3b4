"""A few continuations of held-out text: numbers say that a model got better, samples say at what.

Samples are an extra. They are drawn from the run's seed, so that two evaluations differ in the model alone; during a training
its own random numbers are put back by `CommittingTrainer.evaluate`, and what goes wrong here is told and forgotten.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import end_tokens
from trainyard.trainer.log import say, warn

FOLDER = "samples"
PROMPT_TOKENS = 48
NEW_TOKENS = 64
TEMPERATURE = 0.7
TOP_P = 0.9


@dataclass(frozen=True)
class Sample:
    """What the model was given, what it made of it, and what stood there in truth."""

    prompt: str
    generated: str
    expected: str


def generate(model: Any, tokenizer: Any, sequences: Sequences, *, device: str, seed: int, count: int) -> list[Sample]:
    """Continue the beginnings of `count` held-out examples, drawn at TEMPERATURE from the seed, so that the same model says the
    same. (The likeliest token every time makes a small model repeat itself without end.)

    Where only an answer counts for the loss, the prompt is everything before it; in plain text the first tokens are.
    """
    held_out = len(sequences.starts) - 1
    chosen = np.random.default_rng(seed).permutation(held_out)[:count]
    samples = []
    torch.manual_seed(seed)
    for number in sorted(int(n) for n in chosen):
        ids, counts = sequences.example(number)
        answer = len(ids) if counts is None or not counts.any() else int(counts.argmax())
        cut = (
            min(PROMPT_TOKENS, len(ids) // 2) if counts is None else answer
        )  # a prompt that waits for one is taken whole
        if cut < 1:
            continue
        prompt = torch.from_numpy(ids[:cut])[None].to(device)
        with torch.no_grad():
            output = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=0,
                eos_token_id=end_tokens(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
            )
        samples.append(
            Sample(
                prompt=tokenizer.decode(ids[:cut], skip_special_tokens=False),
                generated=tokenizer.decode(output[0, cut:], skip_special_tokens=True),
                expected=tokenizer.decode(ids[cut : cut + NEW_TOKENS], skip_special_tokens=True),
            )
        )
    return samples


def show(samples: list[Sample]) -> None:
    """Print them, indented."""
    for number, sample in enumerate(samples, start=1):
        say(f"sample {number}:")
        _block("given", sample.prompt[-400:])
        _block("generated", sample.generated[:400])


def _block(title: str, text: str) -> None:
    print(f"  {title}:")
    for line in text.strip("\n").splitlines() or [""]:
        print(f"    | {line}")


class Sampling(TrainerCallback):  # type: ignore[misc]
    """Leaves `samples/step-<n>.json` in the run's (or phase's) folder."""

    def __init__(self, context: RunContext, tokenizer: Any, *, vocab_size: int, device: str) -> None:
        self._context = context
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._device = device

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        sequences = Sequences.open(self._context.data_dir / "eval", vocab_size=self._vocab_size)
        was_training = model.training
        model.eval()
        try:
            found = generate(
                model,
                self._tokenizer,
                sequences,
                device=self._device,
                seed=self._context.training.seed,
                count=self._context.run.spec.evaluation.samples,
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
            warn(f"no samples at step {state.global_step}: {str(error).splitlines()[0]}")
            return
        finally:
            model.train(was_training)
        if found:
            show(found[:1])
            folder = self._context.work_dir / FOLDER
            folder.mkdir(exist_ok=True)
            text = json.dumps([dataclasses.asdict(s) for s in found], indent=1, ensure_ascii=False)
            (folder / f"step-{state.global_step:08}.json").write_text(text)
