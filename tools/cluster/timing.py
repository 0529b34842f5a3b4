"""Tells the person at the terminal what happens, and keeps how long each part took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Timings:
    """Seconds per named part of one command, in order; parts may nest and then both count."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.parts: dict[str, float] = {}
        self._begin = time.monotonic()

    @property
    def total(self) -> float:
        return time.monotonic() - self._begin

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block and print a line at its end, even when it fails."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.parts[name] = round(time.monotonic() - begin, 2)
            print(f"  {self.parts[name]:7.1f} s  {name}", flush=True)

    def save(self, path: Path) -> None:
        """Add this command's figures to the file, replacing its earlier ones."""
        try:
            known = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        known[self.command] = {"total": round(self.total, 2), "parts": self.parts}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1) + "\n")


def say(text: str) -> None:
    print(text, flush=True)
