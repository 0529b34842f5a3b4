"""Telling the operator how far it is, without ever getting in the way.

Facts are handed over as they are; a daemon thread makes records of them and sends them. A record goes out with the first
change, then at most every two seconds, and at once at milestones (a checkpoint, a new phase, the end). While the receiver
is away, milestones wait in a short queue and everything else is overwritten by its newest value, so that after an outage of
any length a handful of records tells the whole story. Each carries a sequence number; the receiver drops what arrives late.
401, 404 and 410 mean that the run is gone: then nothing is sent any more.

What the receiver would not take (a metric too many, a number out of its range) is left out of a record by the thread; the
rest of it arrives.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainyard.api.progress import ProgressRecord
from trainyard.trainer.context import RunContext

INTERVAL = 2.0
"""Seconds between two records that are not milestones."""
TIMEOUT = 5.0
"""Seconds until a request counts as lost."""
SPOOL = 64
"""Milestones kept while the receiver is away; then the oldest go."""
LONGEST_BACKOFF = 30.0
GONE = frozenset({401, 404, 410})
REFUSED = frozenset({400, 413, 422})
"""Answers to a record that will never be taken."""


def now() -> str:
    """The time as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Snapshot:
    """The facts of one moment."""

    facts: Mapping[str, Any]
    sequence: int
    time: str


class Sender:
    """Sends the facts of one attempt."""

    def __init__(
        self,
        *,
        url: str,
        token_file: Path,
        run_uid: str,
        step: str,
        attempt: int,
        interval: float = INTERVAL,
        backoff: float = 1.0,
    ) -> None:
        self._url = url
        self._token_file = token_file
        self._identity = {"run_uid": run_uid, "step": step, "attempt": attempt}
        self._interval = interval
        self._first_backoff = backoff
        self._facts: Mapping[str, Any] = {}
        self._sequence = 0
        self._changed = False
        self._milestones: deque[Snapshot] = deque(maxlen=SPOOL)
        self._wake = threading.Condition()
        self._closing = False
        # Our receiver is a cluster-internal address: never through a proxy that the environment may name.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, context: RunContext) -> Sender | None:
        """For a step; None where nobody wants to hear of it."""
        if context.progress_url is None:
            return None
        return cls(
            url=context.progress_url,
            token_file=context.token_file,
            run_uid=context.uid,
            step=context.step,
            attempt=context.attempt,
        )

    def send(self, facts: Mapping[str, Any], *, milestone: bool) -> None:
        """Take all facts as of now, by the field names of ProgressRecord. They must not be changed afterwards."""
        with self._wake:
            self._facts = facts
            self._changed = not milestone
            if milestone:
                self._milestones.append(self._snapshot())
            self._wake.notify()

    def close(self, timeout: float) -> None:
        """Send what is left, for at most `timeout` seconds."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def _snapshot(self) -> Snapshot:
        self._sequence += 1
        return Snapshot(self._facts, self._sequence, now())

    def _run(self) -> None:
        backoff = self._first_backoff
        last_sent = float("-inf")
        while True:
            with self._wake:
                while not (self._milestones or self._changed or self._closing):
                    self._wake.wait()
                pause = last_sent + self._interval - time.monotonic()
                if not self._milestones and not self._closing and pause > 0:
                    self._wake.wait(pause)
                    continue
                if not self._milestones and not self._changed:
                    return  # closing, and nothing is left
                snapshot = self._milestones[0] if self._milestones else self._snapshot()
                is_milestone = bool(self._milestones)
                if not is_milestone:
                    self._changed = False
            outcome = self._send(snapshot)
            last_sent = time.monotonic()
            with self._wake:
                if outcome == "gone":
                    return
                if outcome == "sent":
                    backoff = self._first_backoff
                    if is_milestone and self._milestones and self._milestones[0] is snapshot:
                        self._milestones.popleft()
                    continue
                if not is_milestone:
                    self._changed = True  # its numbers are still the newest, or newer ones have replaced them
                if self._closing:
                    return
                deadline = time.monotonic() + backoff * random.uniform(0.5, 1.5)
                while not self._closing and (left := deadline - time.monotonic()) > 0:
                    self._wake.wait(left)
                backoff = min(backoff * 2, LONGEST_BACKOFF)

    def _send(self, snapshot: Snapshot) -> str:
        """`sent` (or of no use), `lost` (try again) or `gone` (never try again)."""
        own = {**self._identity, "sequence": snapshot.sequence, "time": snapshot.time}
        record = ProgressRecord.lenient({**snapshot.facts, **own})
        if record is None:
            return "sent"
        headers = {"Content-Type": "application/json"}
        # Read every time: the operator may have renewed it. Without one, a receiver answers 401, which ends this.
        with contextlib.suppress(OSError):
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        request = urllib.request.Request(self._url, data=record.to_json().encode(), headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT):
                return "sent"
        except urllib.error.HTTPError as error:
            error.close()
            return "gone" if error.code in GONE else "sent" if error.code in REFUSED else "lost"
        except (OSError, ValueError):
            return "lost"
