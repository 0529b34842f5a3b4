"""Whoever serves the newest model: reads what is in use, as the recipe says, again and again, and notes what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any


class Reader(threading.Thread):
    """Reads what is in use, as the recipe says, again and again."""

    def __init__(self, client: Any) -> None:
        super().__init__(daemon=True)
        self.client, self.stopped, self.models, self.faults = client, threading.Event(), set(), []

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._read()
            except self.client.exceptions.NoSuchKey:
                if self.models:
                    self.faults.append("what was there is gone")
            except Exception as error:
                self.faults.append(repr(error))

    def _read(self) -> None:
        held = self._document("agent-sre/latest.json")
        prefix = held["uri"].removeprefix("s3://models/")
        manifest = self._document(f"{prefix}manifest.json")
        if manifest["digest"] != held["digest"]:
            self.faults.append(f"{held} names {manifest['digest']}")
        for name, entry in manifest["files"].items():
            content = self.client.get_object(Bucket="models", Key=prefix + name)["Body"].read()
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                self.faults.append(f"{prefix}{name} is another file")
        self.models.add(held["uri"])

    def _document(self, key: str) -> Any:
        return json.loads(self.client.get_object(Bucket="models", Key=key)["Body"].read())
