"""The longest batch first: finds out before step 1 what would otherwise be found out at step 180.

Where examples differ in length, a training may run for an hour before it draws the batch that does not fit. So the longest
sequences are put through forward and backward once, with the memory that the optimizer will take already taken, twice where
gradients of an earlier micro-batch lie beside the activations of the next, and one batch of the longest held-out sequences
is measured. Nothing of it stays: gradients are dropped, random numbers and counters are put back, so a run with a probe
ends with the same bits as one without.

On a CPU there is no limit that could be met before the kernel kills the process, so nothing is probed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from trainyard.trainer.log import say
from trainyard.trainer.methods import state
from trainyard.trainer.models.estimate import optimizer_bytes

TRACES = ("_metrics", "_stored_metrics", "_total_train_tokens", "counters", "current_flos")
"""What a trainer of TRL notes about a batch that it computes a loss for."""


def probe(trainer: Any, model: Any, *, memory: int | None) -> None:
    """Run the largest training batch and the largest evaluation batch, and leave no trace. Inside transformers' loop, when
    model and optimizer are prepared.

    Args:
        memory: bytes of the device, for the log.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    if not hasattr(trainer.train_dataset, "lengths"):
        return
    generators = state.read_generators()
    traces = {name: copy.deepcopy(getattr(trainer, name)) for name in TRACES if hasattr(trainer, name)}
    arguments = trainer.args
    device = arguments.device
    try:
        reserved = _reserve(_missing_optimizer_state(trainer, model), device)
        batch = longest(trainer, trainer.train_dataset, arguments.per_device_train_batch_size)
        tokens = batch["input_ids"].numel() if "input_ids" in batch else 0
        for _ in range(min(2, arguments.gradient_accumulation_steps)):
            batches, items = trainer.get_batch_samples(iter([dict(batch)]), 1, device)
            trainer.current_gradient_accumulation_steps = 1
            trainer.training_step(model, batches[0], items)
        if "fused" not in arguments.optim:
            # The step itself works on a copy of its moments.
            _reserve(4 * sum(p.numel() for p in model.parameters() if p.requires_grad), device)
        model.zero_grad(set_to_none=True)
        if trainer.eval_dataset is not None and hasattr(trainer.eval_dataset, "lengths"):
            trainer.evaluate_in_batches_that_fit(lambda: _evaluate(trainer, model))
        del reserved
    finally:
        model.zero_grad(set_to_none=True)
        model.train()
        for name, value in traces.items():
            setattr(trainer, name, value)
        state.restore_generators(generators)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    peak = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device.type == "cuda" else ""
    size = f" of {memory / 1e9:.1f} GB" if memory else ""
    say(f"the longest batch fits ({tokens:,} tokens at a time{peak}{size})")


def longest(trainer: Any, dataset: Any, count: int) -> dict[str, Any]:
    """A batch of the longest sequences."""
    order = dataset.lengths.argsort(kind="stable")[::-1][:count]
    rows = [dataset[int(index)] for index in order]
    batch: dict[str, Any] = trainer.data_collator(rows)
    return batch


def _evaluate(trainer: Any, model: Any) -> None:
    batch = longest(trainer, trainer.eval_dataset, trainer.args.per_device_eval_batch_size)
    model.eval()
    trainer.prediction_step(model, batch, prediction_loss_only=True)


def _missing_optimizer_state(trainer: Any, model: Any) -> int:
    """Bytes that the first step will add."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    there: int = sum(
        value.numel() * value.element_size()
        for entry in trainer.optimizer.state.values()
        for value in (entry.values() if isinstance(entry, dict) else ())
        if isinstance(value, torch.Tensor)
    )
    wanted: int = trained * optimizer_bytes(trainer.args.optim)
    return max(0, wanted - there)


def _reserve(size: int, device: torch.device) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)
