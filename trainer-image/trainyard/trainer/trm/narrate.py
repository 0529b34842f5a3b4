"""What people and the operator see of the training: one line per logging step, the same numbers as progress.

Loss and accuracy of one step say little, because few slots halt in it; shown are sums since the last line, weighted by
the examples that finished.
"""

from __future__ import annotations

import time

from trainyard.api.duration import duration
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import Device
from trainyard.trainer.provenance import started_at
from trainyard.trainer.reporter import Reporter, position
from trainyard.trainer.trm.fit import Fit, Report


class Narrator:
    """Follows one attempt."""

    def __init__(self, reporter: Reporter, device: Device, fit: Fit, *, every: int) -> None:
        self._reporter = reporter
        self._device = device
        self._fit = fit
        self._every = every
        self._first_step = fit.step
        self._first_ended: float | None = None
        self._since: list[Report] = []
        self._since_time = time.monotonic()

    def tell(self, report: Report) -> None:
        """Called after each step."""
        if self._first_ended is None:
            self._first_ended = time.monotonic()
            since = time.time() - started_at()
            self._reporter.report(timings={"firstStepAfter": round(since, 2)})
            say(f"first step {since:.1f} s after the process started")
        total = self._fit.recipe.steps
        self._since.append(report)
        metrics = None
        if report.step % self._every == 0 or report.step >= total:
            metrics = self._metrics(report)
            say(
                f"step {report.step}/{total} ({report.step / total:.1%})  loss {metrics['loss']:.4f}"
                + (f"  exact {metrics['exact_accuracy']:.1%}" if "exact_accuracy" in metrics else "")
                + (f"  iterations {metrics['iterations']:.1f}" if "iterations" in metrics else "")
                + f"  lr {report.learning_rate:.2e}  |grad| {report.grad_norm:.3f}"
                f"  {metrics['steps_per_second']:.2f} steps/s  ETA {duration(self._eta(report))}"
            )
        self._reporter.report(
            **position(report.step, total),
            epoch=round(self._fit.stream.epoch, 3),
            estimated_remaining_seconds=self._eta(report),
            metrics=metrics,
        )

    def tell_exact(self, exact: float) -> None:
        """The averaged weights were measured."""
        self._reporter.report(metrics={"eval_exact": exact}, milestone=True)
        say(f"step {self._fit.step}/{self._fit.recipe.steps}  eval exact {exact:.2%}")

    def _metrics(self, report: Report) -> dict[str, float]:
        seen, self._since = self._since, []
        now = time.monotonic()
        rate = len(seen) / max(now - self._since_time, 1e-9)
        self._since_time = now
        metrics = {
            "loss": sum(r.loss for r in seen) / len(seen),
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            "steps_per_second": round(rate, 3),
            "memory_bytes": float(self._device.memory_used()),
        }
        finished = sum(r.halted for r in seen)
        if finished:
            for name, field in (
                ("exact_accuracy", "exact"),
                ("token_accuracy", "token_accuracy"),
                ("iterations", "iterations"),
            ):
                metrics[name] = sum((getattr(r, field) or 0.0) * r.halted for r in seen) / finished
        return metrics

    def _eta(self, report: Report) -> float | None:
        timed = report.step - self._first_step - 1
        if self._first_ended is None or timed < 1:
            return None
        per_step = (time.monotonic() - self._first_ended) / timed
        return round(per_step * (self._fit.recipe.steps - report.step), 1)
