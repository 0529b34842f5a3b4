"""What the step would say if it had to end now.

Steps write facts into the ledger as they become true (the newest checkpoint, the step number, the dataset's digest).
Whoever ends the process, the main thread or the signal thread, turns it into the final record. The kubelet reads that
from the termination message, and the operator believes it over anything pushed before.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

from trainyard.api.names import TERMINATION_LOG_LIMIT
from trainyard.api.progress import FinalRecord
from trainyard.trainer.errors import UserError
from trainyard.trainer.log import last_lines


class Ledger:
    """Facts for the final record, by its field names. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts: dict[str, Any] = {}

    def note(self, **facts: Any) -> None:
        """Set fields; mappings are merged into what is there."""
        with self._lock:
            for name, value in facts.items():
                known = self._facts.get(name)
                self._facts[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value

    def record(
        self,
        outcome: Literal["Succeeded", "Resume", "Failed"],
        *,
        step: str,
        attempt: int,
        error: UserError | None = None,
    ) -> FinalRecord:
        """The final record as of now."""
        with self._lock:
            facts = dict(self._facts)
        if error is not None:
            facts |= {"reason": str(error.reason), "message": error.message, "hint": error.hint or None}
        lines = last_lines() if outcome == "Failed" else []
        own = {"step": step, "attempt": attempt, "outcome": outcome, "last_log_lines": lines}
        # A fact that is out of its bounds must not cost the others.
        record = FinalRecord.lenient(own | facts)
        assert record is not None
        return record


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


LEDGER = Ledger()
"""The process's own."""
