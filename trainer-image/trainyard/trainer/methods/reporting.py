"""What people and the operator see of a running training: one line per logging step, the same numbers as progress.

The rate behind the ETA is that of this attempt, without its first step (which warms up caches and allocators): after a
restart the percentage goes on where it was, and the ETA is right from the second step on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from trainyard.api.conditions import Reason
from trainyard.api.duration import duration
from trainyard.trainer.errors import UNEXPECTED, UserError
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import Device
from trainyard.trainer.methods.trainer import CommittingTrainer
from trainyard.trainer.methods.utilisation import operations_per_token, peak_of
from trainyard.trainer.provenance import started_at
from trainyard.trainer.reporter import Position, Reporter, position


class Reporting(TrainerCallback):  # type: ignore[misc]
    """Follows transformers' loop."""

    def __init__(
        self,
        reporter: Reporter,
        device: Device,
        *,
        before_first_step: Callable[[CommittingTrainer, Any], None] | None = None,
    ) -> None:
        self._reporter = reporter
        self._device = device
        self._before_first_step = before_first_step
        self._trainer: CommittingTrainer | None = None
        self._first_step = 0
        self._first_step_ended: float | None = None
        self._peak: float | None = None
        self._operations: float | None = None
        self._logged_at = 0.0
        self._logged_tokens = 0

    def follow(self, trainer: CommittingTrainer) -> None:
        """The trainer whose counters are shown."""
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self._trainer is not None
        self._peak = peak_of(self._device.name, self._device.precision)
        self._operations = operations_per_token(self._trainer.model) if self._peak else None
        self._trainer.continue_unlogged_loss()
        if self._before_first_step is not None:
            self._before_first_step(self._trainer, self._trainer.model_wrapped)
        self._first_step = state.global_step
        self._logged_at = time.monotonic()
        self._logged_tokens = self._trainer.counters.tokens
        self._reporter.report(phase="train", first_step=state.global_step, **_position(state))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._first_step_ended is None:
            self._first_step_ended = time.monotonic()
            since = time.time() - started_at()
            self._reporter.report(timings={"firstStepAfter": round(since, 2)})
            say(f"first step {since:.1f} s after the process started")
        if state.global_step >= state.max_steps:
            control.should_log = True
        self._reporter.report(
            **_position(state),
            epoch=round(float(state.epoch or 0.0), 3),
            estimated_remaining_seconds=self._eta(state),
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        assert self._trainer is not None
        logs = logs or {}
        if any(name.startswith("eval_") for name in logs):
            self._log_evaluation(state, logs)
        if "loss" not in logs:
            return
        now, tokens = time.monotonic(), self._trainer.counters.tokens
        rate = (tokens - self._logged_tokens) / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_tokens = now, tokens
        metrics = {
            "loss": logs["loss"],
            "learning_rate": logs.get("learning_rate", 0.0),
            "grad_norm": logs.get("grad_norm", 0.0),
            "tokens_per_second": round(rate, 1),
            "memory_bytes": float(self._device.memory_used()),
        }
        if self._peak and self._operations:
            metrics["mfu"] = round(rate * self._operations / (self._peak * self._trainer.team.size), 4)
        if "mean_token_accuracy" in logs:
            metrics["token_accuracy"] = logs["mean_token_accuracy"]
        metrics |= {name: rounded(value) for name, value in logs.items() if is_of_method(name)}
        self._reporter.report(metrics=metrics, **_position(state), estimated_remaining_seconds=self._eta(state))
        used = f"MFU {metrics['mfu']:.1%}  " if "mfu" in metrics else ""
        say(
            f"step {state.global_step}/{state.max_steps} ({state.global_step / state.max_steps:.1%})  "
            f"loss {metrics['loss']:.4f}  lr {metrics['learning_rate']:.2e}  |grad| {metrics['grad_norm']:.3f}  "
            f"{headline(logs)}{rate:,.0f} tok/s  {used}ETA {duration(self._eta(state))}  mem {metrics['memory_bytes'] / 1e9:.2f} GB"
        )
        if math.isnan(metrics["loss"]):
            in_fp32 = "" if self._device.precision == "FP32" else ", or train in precision FP32"
            raise UserError(
                f"the loss is not a number at step {state.global_step}",
                hint=f"lower spec.training.learningRate{',' if in_fp32 else ' or'} raise warmupSteps{in_fp32}; checkpoints from "
                "before are kept",
                reason=Reason.ERROR,
                exit_code=UNEXPECTED,
            )

    def _log_evaluation(self, state: Any, logs: dict[str, float]) -> None:
        kept = {"eval_loss", *(f"eval_{name}" for name in HEADLINES)}
        metrics: dict[str, float | None] = {name: rounded(value) for name, value in logs.items() if name in kept}
        self._reporter.report(metrics=metrics, milestone=True)
        loss = logs.get("eval_loss")
        shown = "" if loss is None else f"eval loss {loss:.4f}  "
        if loss is not None and not any(is_of_method(name) for name in logs):
            shown += f"perplexity {math.exp(loss) if loss < 700 else math.inf:.2f}"
        say(f"step {state.global_step}/{state.max_steps}  {shown}{headline(logs, 'eval_')}".rstrip())

    def _eta(self, state: Any) -> float | None:
        """Seconds; None until a second step has been timed."""
        timed = state.global_step - self._first_step - 1
        if self._first_step_ended is None or timed < 1:
            return None
        per_step = (time.monotonic() - self._first_step_ended) / timed
        return round(float(per_step * (state.max_steps - state.global_step)), 1)


def _position(state: Any) -> Position:
    return position(state.global_step, state.max_steps)


HEADLINES = {
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "objective/scores": "reward",
    "objective/kl": "KL",
    "kl": "KL",
}


def is_of_method(name: str) -> bool:
    """Whether a logged value is a metric of DPO, ORPO, KTO or PPO, under TRL's name for it."""
    return "/" in name or name.removeprefix("eval_") in ("nll_loss", "log_odds_ratio", "log_odds_chosen", "kl")


def rounded(value: float) -> float:
    """Six digits: records are short, and nobody reads more."""
    return float(f"{value:.6g}")


def headline(logs: dict[str, float], prefix: str = "") -> str:
    """The method's metrics that the log line has room for."""
    return "".join(f"{said} {logs[prefix + name]:.4f}  " for name, said in HEADLINES.items() if prefix + name in logs)
