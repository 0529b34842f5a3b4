"""The one voice of a step: what it reports goes to the operator while it works, and into its final record.

Every fact is reported once. It is kept until the process ends, and whoever ends it, the main thread or the signal thread,
turns what is kept into the final record. The kubelet reads that from the termination message, and the operator believes it
over anything pushed before. Meanwhile the same facts go out as progress (see `progress.py`).

Nothing is validated here: the training thread copies some numbers and goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from trainyard.api.names import TERMINATION_LOG_LIMIT
from trainyard.api.progress import FinalRecord
from trainyard.trainer.errors import UserError
from trainyard.trainer.log import last_lines
from trainyard.trainer.progress import Sender

Metrics = Mapping[str, float | None]
Listener = Callable[[int | None, Metrics], None]
"""Is told the step number and new metrics."""
AT_THE_END = frozenset({"dataset", "evaluation", "export", "provenance", "timings"})
"""What is in the final record alone."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A committed checkpoint. `path` is relative to the checkpoint volume, `time` RFC 3339."""

    step: int
    path: str
    time: str
    bytes: int


@dataclass(frozen=True)
class PreparedDataset:
    """What the training is made from: a digest, and how many records of it come from where. `sources` and `built` are by name;
    `built` has what a trace store calls a dataset that it has built."""

    digest: str
    records: int
    tokens: int | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    built: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Position(TypedDict):
    """How far the training is."""

    step_number: int
    total_steps: int
    percentage: float


def position(step: int, total: int) -> Position:
    """Of optimizer steps."""
    return {"step_number": step, "total_steps": total, "percentage": round(100.0 * step / max(total, 1), 2)}


class Reporter:
    """What one attempt at a step has reported so far. Safe to use from any thread."""

    def __init__(self, step: str, attempt: int) -> None:
        self.step = step
        self._attempt = attempt
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {}
        self._sender: Sender | None = None
        self._listeners: list[Listener] = []

    def send_through(self, sender: Sender | None) -> None:
        """From now on the operator is told too."""
        self._sender = sender

    def listen(self, listener: Listener) -> None:
        """Have somebody told of all metrics, in the thread that reports them."""
        self._listeners.append(listener)

    def report(
        self,
        *,
        milestone: bool = False,
        phase: str | None = None,
        message: str | None = None,
        first_step: int | None = None,
        step_number: int | None = None,
        total_steps: int | None = None,
        epoch: float | None = None,
        percentage: float | None = None,
        estimated_remaining_seconds: float | None = None,
        metrics: Metrics | None = None,
        checkpoint: SavedCheckpoint | None = None,
        effective: Mapping[str, Any] | None = None,
        mlflow_run_id: str | None = None,
        dataset: PreparedDataset | None = None,
        evaluation: Mapping[str, Any] | None = None,
        export: Mapping[str, str | None] | None = None,
        provenance: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
    ) -> None:
        """Merge new facts; names are those of the records, and None says nothing. Blocks for no longer than it takes to copy
        them.

        A milestone reaches the operator even if newer facts come before it is sent. A checkpoint is one, and so is the
        beginning of a phase.
        """
        told: dict[str, Any] = {
            "phase": phase,
            "message": message,
            "first_step": first_step,
            "step_number": step_number,
            "total_steps": total_steps,
            "epoch": epoch,
            "percentage": percentage,
            "estimated_remaining_seconds": estimated_remaining_seconds,
            "metrics": metrics,
            "checkpoint": checkpoint and asdict(checkpoint),
            "effective": effective,
            "mlflow_run_id": mlflow_run_id,
            "dataset": dataset and _dataset(dataset),
            "evaluation": evaluation,
            "export": export,
            "provenance": provenance,
            "timings": timings,
        }
        told = {name: value for name, value in told.items() if value is not None}
        with self._lock:
            milestone |= checkpoint is not None or (phase is not None and phase != self._facts.get("phase"))
            for name, value in told.items():
                known = self._facts.get(name)
                # New mappings, not changed ones: those of before are on their way.
                self._facts[name] = {**(known or {}), **value} if isinstance(value, Mapping) else value
            at = self._facts.get("step_number")
            if self._sender is not None and (milestone or told.keys() - AT_THE_END):
                self._sender.send(dict(self._facts), milestone=milestone)
        if metrics:
            for listener in self._listeners:
                listener(at, metrics)

    def fact(self, name: str) -> Any:
        """What has been reported under this name of the records; None if nothing has."""
        with self._lock:
            return self._facts.get(name)

    def final_record(
        self, outcome: Literal["Succeeded", "Resume", "Failed"], error: UserError | None = None
    ) -> FinalRecord:
        """What the step would leave if it ended now."""
        with self._lock:
            facts = dict(self._facts)
        facts.pop("message", None)  # of a moment
        if error is not None:
            facts |= {"reason": str(error.reason), "message": error.message, "hint": error.hint or None}
        facts |= {"outcome": outcome, "last_log_lines": last_lines() if outcome == "Failed" else []}
        record = FinalRecord.lenient(facts | {"step": self.step, "attempt": self._attempt})
        assert record is not None
        return record

    def close(self, timeout: float = 3.0) -> None:
        """Send what is left, for at most `timeout` seconds."""
        if self._sender is not None:
            self._sender.close(timeout)


def write_final_record(path: Path | None, record: FinalRecord) -> None:
    """Write the termination message to `path` (None: nobody reads one). Failing to is reported, never raised."""
    if path is None:
        return
    text = record.fit(TERMINATION_LOG_LIMIT)
    try:
        # No temporary file: the kubelet has mounted this very file, and it is shorter than one page.
        path.write_text(text)
    except OSError as error:
        print(f"cannot write {path}: {error}; the final record was: {text}", flush=True)


def _dataset(dataset: PreparedDataset) -> dict[str, Any]:
    facts = asdict(dataset)
    built = facts.pop("built")
    sources = [{"name": name, "records": records, **built.get(name, {})} for name, records in dataset.sources.items()]
    return facts | {"sources": sources}
