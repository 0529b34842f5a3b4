"""What is to be delivered, in order, on the checkpoint volume.

Entries are lines of one file, appended as they come; a second file holds how far they have been delivered. So an outage
of the receiver, or the death of this process, loses nothing: the next attempt or the next step goes on with delivery.
After a restart a training repeats the steps behind its checkpoint, with the same numbers; those are not noted twice.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
READ_AT_ONCE = 256 * 1024
"""Bytes of entries that are read for one delivery."""


class Outbox:
    """One file of entries. `add` may be called from any thread; delivery is one thread's."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._entries, self._mark = folder / "outbox.jsonl", folder / "delivered"
        self._lock = threading.Lock()
        self._once: set[str] = set()
        self._last_step: dict[str, int] = {}
        self._size = self._read_back()
        self._delivered = min(int(self._mark.read_text() or 0) if self._mark.exists() else 0, self._size)

    def add(self, entry: Entry, *, once: str = "") -> None:
        """Append. With `once`, only if no entry of that name has ever been added."""
        with self._lock:
            if once and once in self._once:
                return
            whole = {**entry, "once": once} if once else entry
            if "metrics" in entry and not self._is_new(entry):
                return
            line = (json.dumps(whole) + "\n").encode()
            with self._entries.open("ab") as file:
                file.write(line)
            self._size += len(line)
            self._note(whole)

    def waiting(self) -> list[tuple[int, Entry]]:
        """The next entries that are not delivered, each with the mark to set behind it."""
        with self._lock:
            if self._delivered >= self._size:
                return []
            with self._entries.open("rb") as file:
                file.seek(self._delivered)
                lines = file.readlines(READ_AT_ONCE)
            found, offset = [], self._delivered
            for line in lines:
                offset += len(line)
                found.append((offset, json.loads(line)))
            return found

    def delivered(self, mark: int) -> None:
        """Everything before this mark need not be sent again."""
        with self._lock:
            self._delivered = mark
            self._mark.write_text(str(mark))

    @property
    def last_step(self) -> int:
        """The largest step of any metric."""
        with self._lock:
            return max(self._last_step.values(), default=0)

    @property
    def left(self) -> int:
        """How many entries wait."""
        with self._lock:
            if self._delivered >= self._size:
                return 0
            with self._entries.open("rb") as file:
                file.seek(self._delivered)
                return sum(1 for _ in file)

    def _read_back(self) -> int:
        """What earlier attempts have noted. A line that was cut off by the end of a process goes."""
        if not self._entries.exists():
            return 0
        size = 0
        with self._entries.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                self._note(json.loads(line))
        with self._entries.open("rb+") as file:
            file.truncate(size)
        return size

    def _note(self, entry: Entry) -> None:
        if once := entry.get("once"):
            self._once.add(once)
        if "metrics" in entry:
            for name in entry["metrics"]:
                self._last_step[name] = max(self._last_step.get(name, -1), int(entry["step"]))

    def _is_new(self, entry: Entry) -> bool:
        entry["metrics"] = {
            name: value for name, value in entry["metrics"].items() if entry["step"] > self._last_step.get(name, -1)
        }
        return bool(entry["metrics"])
