"""Out of memory: what is given up, in which order, and how the run remembers it.

    half the micro-batch, twice the accumulation  ->  ...  ->  batch 1  ->  gradient checkpointing  ->  8-bit optimizer

The effective batch stays what the spec says, so the training is the same one; only its speed changes. Each rung goes into
`memory.json` on the volume before it is tried, so an attempt that dies on the way does not climb up again, and since no
rung is taken twice there is an end: a request that not even the last rung satisfies fails with advice. Which rungs a kind
of training has after batch 1 is its `Ladder`.

Evaluation has rungs of its own, and they are quicker taken: its batches are halved until they fit (`EvaluationBatch`).

The file belongs to the five settings that it started from. Whoever changes one of them (which the API allows while the run
is suspended) starts at the top again.
"""

from __future__ import annotations

import importlib.util
import json
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.api.progress import REDUCTIONS, REDUCTIONS_SEPARATOR
from trainyard.api.run.training import Training
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, is_device_out_of_memory
from trainyard.trainer.machine.device import free_memory
from trainyard.trainer.volume.commit import write_durably

FILE = "memory.json"
SETTINGS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "optim",
    "per_device_eval_batch_size",
)
"""What the ladder may change."""
ADAMW = ("adamw_torch", "adamw_torch_fused")
EIGHT_BIT = "adamw_bnb_8bit"
ADAPTER_ADVICE = re.compile(r", (or )?train a LoRA adapter \(spec\.model\.adapter\)")
"""Nothing is advised that has been done already."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ladder:
    """What a kind of training can give up besides its batch, and what is left to people: at the end of the ladder, and where
    spec.onOutOfMemory forbids it."""

    checkpointing: bool
    eight_bit: bool
    way_out: str
    by_hand: str


class DidNotFit(Exception):
    """The device ran out of memory during training; weights and counters of step `step` are safe.

    `together` is how many examples pass through the model at a time, where that is less than the batch.
    """

    def __init__(self, step: int, told: str, *, together: int | None = None) -> None:
        super().__init__(told)
        self.step = step
        self.together = together


def told_by(error: RuntimeError) -> str:
    """What the device says that ran out of memory; the activations, which the traceback holds, are let go.

    Raises:
        RuntimeError: the error itself, if it tells of anything else.
    """
    if not is_device_out_of_memory(error):
        raise error
    traceback.clear_frames(error.__traceback__)
    return str(error).strip().splitlines()[0][:500]


class EvaluationBatch:
    """How many held-out examples pass through the model at a time. Results do not depend on it, so it is halved as long as
    the device runs out of memory, if it may be; `on_smaller` is told."""

    def __init__(self, size: int, *, may_shrink: bool, on_smaller: Callable[[int], None]) -> None:
        self.size = size
        self._may_shrink = may_shrink
        self._on_smaller = on_smaller

    def fitting(self, measure: Callable[[int], T]) -> T:
        """Call `measure` with the size, and again until it fits.

        Raises:
            RuntimeError: not even one example fits, or it must.
        """
        while True:
            try:
                return measure(self.size)
            except RuntimeError as error:
                if not self._may_shrink or self.size == 1:
                    raise
                told_by(error)
            free_memory()
            self.size //= 2
            self._on_smaller(self.size)


@dataclass(frozen=True)
class Reductions:
    """The rungs taken so far: the settings that hold now, and what was changed, for people."""

    wanted: Training
    settings: Training
    taken: tuple[str, ...] = ()

    def noted(self) -> dict[str, str]:
        """For `effective`."""
        return {REDUCTIONS: REDUCTIONS_SEPARATOR.join(self.taken)} if self.taken else {}


def recall(work_dir: Path, wanted: Training) -> Reductions:
    """What earlier attempts have found out about these settings."""
    fresh = Reductions(wanted, wanted)
    try:
        found = json.loads((work_dir / FILE).read_text())
        if found["wanted"] != _values(wanted):
            return fresh
        changes = {name: found["settings"][name] for name in SETTINGS}
        return Reductions(wanted, wanted.model_copy(update=changes), tuple(map(str, found["taken"])))
    except (OSError, ValueError, KeyError, TypeError):
        return fresh


def remember(work_dir: Path, reductions: Reductions) -> None:
    """Make the rungs durable.

    Raises:
        OSError: the volume is full or broken.
    """
    found = {
        "wanted": _values(reductions.wanted),
        "settings": _values(reductions.settings),
        "taken": list(reductions.taken),
    }
    write_durably(work_dir / FILE, json.dumps(found, indent=1))


def one_rung_down(
    reductions: Reductions, *, step: int, eight_bit: bool, checkpointing: bool = True, together: int | None = None
) -> Reductions | None:
    """The next smaller demand; None when there is none left.

    Args:
        reductions: where it stands.
        step: the optimizer step that is done, for the text.
        eight_bit: whether the 8-bit optimizer can take over, that is CUDA, bitsandbytes, and no state of another one yet.
        checkpointing: whether activations can be computed again instead of kept.
        together: how many examples passed through the model at a time, if not the batch.
    """
    now = reductions.settings
    changes: dict[str, Any]
    batch, accumulation = now.per_device_train_batch_size, now.gradient_accumulation_steps
    if (at_a_time := min(batch, together or batch)) > 1:
        effective = batch * accumulation
        smaller = max(b for b in range(1, at_a_time // 2 + 1) if effective % b == 0)
        changes = {"per_device_train_batch_size": smaller, "gradient_accumulation_steps": effective // smaller}
        told = f"batch {smaller} x {effective // smaller} instead of {batch} x {accumulation}"
    elif checkpointing and not now.gradient_checkpointing:
        changes, told = {"gradient_checkpointing": True}, "gradient checkpointing"
    elif eight_bit and now.optim in ADAMW:
        changes, told = {"optim": EIGHT_BIT}, f"optimizer {EIGHT_BIT} instead of {now.optim}"
    else:
        return None
    return _taken(reductions, changes, f"{told}, from step {step} on")


def smaller_evaluation(reductions: Reductions, batch: int, *, step: int) -> Reductions:
    """Evaluation in batches of `batch`; its result does not depend on it."""
    changes = {"per_device_eval_batch_size": batch}
    return _taken(reductions, changes, f"evaluation in batches of {batch}, from step {step} on")


def has_eight_bit_optimizer(device: str) -> bool:
    """Whether bitsandbytes is there and has a GPU to work on."""
    return device == "cuda" and importlib.util.find_spec("bitsandbytes") is not None


def too_large(
    told: str, settings: Training, ladder: Ladder, *, allowed: bool, again: bool = False, adapted: bool = False
) -> UserError:
    """The end of the ladder, or of the patience: `allowed` is False where spec.onOutOfMemory forbids the ladder."""
    what = f"batch {settings.per_device_train_batch_size}"
    what += ", gradient checkpointing" if ladder.checkpointing and settings.gradient_checkpointing else ""
    what += f", {settings.optim}" if settings.optim == EIGHT_BIT else ""
    hint = ladder.way_out.format(max_length=settings.max_length) if allowed else ladder.by_hand
    if adapted:
        hint = ADAPTER_ADVICE.sub("", hint)
    return UserError(
        f"the device ran out of memory{f' even with {what}' if allowed else ''}: {told}",
        hint=hint,
        reason=Reason.DEVICE_OUT_OF_MEMORY,
        exit_code=ExitCode.DEVICE_OUT_OF_MEMORY,
        again=again,
    )


def fitted(context: RunContext, reductions: Reductions) -> RunContext:
    """The run as it is trained now."""
    spec = context.run.spec.model_copy(update={"training": reductions.settings})
    return replace(context, run=context.run.model_copy(update={"spec": spec}))


def _taken(reductions: Reductions, changes: dict[str, Any], told: str) -> Reductions:
    settings = reductions.settings.model_copy(update=changes)
    return replace(reductions, settings=settings, taken=(*reductions.taken, told))


def _values(training: Training) -> dict[str, Any]:
    return {name: getattr(training, name) for name in SETTINGS}
