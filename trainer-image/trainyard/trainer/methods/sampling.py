"""What the model says at each evaluation during the training, so that a person sees it learn.

The samples are an extra. They are drawn from the run's seed, so that two evaluations differ in the model alone; the
training's own random numbers are put back by `CommittingTrainer.evaluate`, and what goes wrong here is told and forgotten.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from transformers import TrainerCallback

from trainyard.trainer.context import RunContext
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.log import warn
from trainyard.trainer.methods import samples

FOLDER = "samples"


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
            found = samples.generate(
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
            samples.show(found[:1])
            folder = self._context.work_dir / FOLDER
            folder.mkdir(exist_ok=True)
            text = json.dumps([dataclasses.asdict(s) for s in found], indent=1, ensure_ascii=False)
            (folder / f"step-{state.global_step:08}.json").write_text(text)
