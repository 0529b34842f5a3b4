"""The lines of a dataset version, from the run's volume to the operator, which passes them on to whoever asked for them.

Posted in pieces that the operator's receiver takes, each until it is taken: the answer says that there is room for the next.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import urllib3

from trainyard.api import names
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.collect.trace_forms import trace_of, written
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import find_damage, read_committed

FORMATS = ("trace", "training_example", "tunix_sft")
PIECE = 60_000
"""Bytes of a post; the receiver takes 64 KiB."""
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 300.0
"""How long a piece is sent again and again."""
GONE = (401, 404, 410)


class _Gone(Exception):
    """Nobody waits for the lines any more."""


def hand_over(form: str, environment: Mapping[str, str] = os.environ) -> int:
    """Send all lines in a store's format; the exit code."""
    token = Path(environment.get(names.ENV_TOKEN_FILE, names.TOKEN_FILE)).read_text().strip()
    post = _Post(environment[names.ENV_HAND_OVER_URL], token)
    try:
        folder = Path(environment[names.ENV_WORK_DIR]) / "dataset"
        present = read_committed(folder)
        problem = "the dataset is not on the run's volume any more" if present is None else find_damage(present)
        if problem is not None:
            post(problem.encode(), "problem=true")
            return ExitCode.INVALID_DATA
        held = b""
        for line in _lines(folder, form):
            held += line
            while len(held) > PIECE:
                post(held[:PIECE])
                held = held[PIECE:]
        post(held, "last=true")
    except _Gone as error:
        say(f"hand-over: {error}")
        return ExitCode.SOURCE_UNAVAILABLE
    say(f"handed over in {post.number} pieces")
    return ExitCode.OK


def _lines(folder: Path, form: str) -> Iterator[bytes]:
    for file in sorted(folder.glob("*/*.jsonl")):
        with open(file, "rb") as stream:
            for line in stream:
                record = written(trace_of(json.loads(line)), form)
                yield json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class _Post:
    """Sends the next piece."""

    def __init__(self, url: str, token: str) -> None:
        self.number = 0
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
        self._pool = urllib3.PoolManager(retries=False, timeout=15.0)

    def __call__(self, body: bytes, query: str = "") -> None:
        url = f"{self._url}?piece={self.number}" + (f"&{query}" if query else "")
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status = self._pool.request("POST", url, body=body, headers=self._headers).status
            except urllib3.exceptions.HTTPError as error:
                status, why = 0, type(error).__name__
            else:
                why = f"HTTP {status}"
            if status == 200:
                self.number += 1
                return
            if status in GONE:
                raise _Gone("nobody waits for these lines any more")
            if time.monotonic() > until:
                raise _Gone(f"the operator takes no piece: {why}")
            time.sleep(PAUSE_SECONDS)
