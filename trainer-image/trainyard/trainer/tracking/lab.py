"""The lab as a follower of the training: points go to `$METRICS_API_URL` in batches, in the lab's words.

For a run that somebody starts outside of the operator's cluster, or whose `podTemplate.env` names a lab of his own. Without the
address nothing is posted. Points wait in a short queue for a thread of their own, so a lab that is away never holds up a
training: it costs points, the oldest first, and one line in the log.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from trainyard.trainer.alerts import post
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Metrics, Reporter

QUEUE = 1000
BATCH = 100
PAUSE = 2.0
"""Seconds between two posts."""
NAMES = {
    "loss": "train_loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "samples_per_second": "samples_per_second",
    "gpu_memory_allocated_gb": "gpu_memory_allocated_gb",
    "gpu_utilization_percent": "gpu_utilization_percent",
    "perplexity": "perplexity",
}
"""Our names of what is measured, and the lab's."""


class LabFollower:
    """Posts what a reporter is told."""

    def __init__(self, *, url: str, job: str, token: str, pause: float = PAUSE) -> None:
        self._url, self._job, self._token, self._pause = url, job, token, pause
        self._points: deque[dict[str, Any]] = deque(maxlen=QUEUE)
        self._wake = threading.Condition()
        self._closing = False
        self._away = False
        self._thread = threading.Thread(target=self._run, name="lab", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> LabFollower | None:
        """None where no address says that anybody wants to hear of it."""
        url = environment.get("METRICS_API_URL", "")
        if not url:
            return None
        say(
            f"metrics are posted to {urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
        )
        return cls(url=url, job=environment.get("JOB_ID", ""), token=environment.get("JOB_TOKEN", ""))

    def follow(self, reporter: Reporter) -> None:
        """From now on."""

        def heard(step: int | None, metrics: Metrics) -> None:
            self.add(step, metrics, epoch=reporter.fact("epoch"))

        reporter.listen(heard)

    def add(self, step: int | None, metrics: Metrics, *, epoch: float | None = None) -> None:
        """A point, if anything in it is of the lab's."""
        values: dict[str, Any] = {
            NAMES[name]: value for name, value in metrics.items() if name in NAMES and value is not None
        }
        if (memory := metrics.get("memory_bytes")) is not None:
            values.setdefault("gpu_memory_allocated_gb", round(memory / 2**30, 3))
        if step is None or not values:
            return
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._wake:
            self._points.append({"step": step, "epoch": epoch, **values, "timestamp": moment})
            self._wake.notify()

    def close(self, timeout: float = 10.0) -> None:
        """Post what is left, for at most `timeout` seconds."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._points and not self._closing:
                    self._wake.wait()
                batch = list(self._points)[:BATCH]
            if not batch:
                return
            sent = self._post(batch)
            with self._wake:
                if sent:
                    for point in batch:
                        if self._points and self._points[0] is point:
                            self._points.popleft()
                if not self._closing:
                    self._wake.wait_for(lambda: self._closing, self._pause)
                if self._closing and not sent:  # who has just not answered is not asked again
                    return

    def _post(self, batch: list[dict[str, Any]]) -> bool:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        what = "metrics" if not self._away else ""
        sent = post(self._url, {"job_id": self._job, "metrics": batch}, headers, what=what)
        self._away = not sent
        return sent
