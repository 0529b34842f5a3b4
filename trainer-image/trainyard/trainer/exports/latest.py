"""`latest.json`: one small object that says which of the folders is in use, and which was before.

An object store can rename nothing, so a folder `latest/` can only be copied into, file by file, and meanwhile a reader finds
half of the old and half of the new model. One object is replaced whole: a reader has the old address or the new one. It is
replaced on the condition that it is still what was read, so of two runs that end together none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from trainyard.trainer.data.bucket import Bucket, Changed
from trainyard.trainer.errors import invalid_config, source_unavailable

NAME = "latest.json"
TRIES = 8

Entry = Mapping[str, Any]
"""`uri`, `digest`, `version`, `run`."""


def promote(bucket: Bucket, key: str, entry: Entry) -> bool:
    """Let it say `entry`. Returns whether it said something else."""

    def change(held: dict[str, Any]) -> dict[str, Any] | None:
        before = {name: value for name, value in held.items() if name != "previous"}
        if _is(held, entry):
            return None
        return {**entry, "previous": before} if before else dict(entry)

    return _change(bucket, key, change)


def back(bucket: Bucket, key: str, given_up: Entry) -> bool:
    """Let it say what it said before `given_up`; nothing where it says something else by now, or there was nothing before."""

    def change(held: dict[str, Any]) -> dict[str, Any] | None:
        before = held.get("previous")
        if not _is(held, given_up) or not isinstance(before, dict) or not before.get("uri"):
            return None
        return {**before, "previous": {name: value for name, value in held.items() if name != "previous"}}

    return _change(bucket, key, change)


def _is(held: Entry, entry: Entry) -> bool:
    return (held.get("uri"), held.get("digest")) == (entry.get("uri"), entry.get("digest"))


def _change(bucket: Bucket, key: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> bool:
    for _ in range(TRIES):
        found = bucket.read(key)
        wanted = change(_parsed(bucket, key, found[0]) if found else {})
        if wanted is None:
            return False
        try:
            bucket.replace(key, (json.dumps(wanted, indent=1) + "\n").encode(), etag=found[1] if found else None)
        except Changed:
            continue
        return True
    raise source_unavailable(
        f"{bucket.told}: {key} was changed by others {TRIES} times while it was being replaced",
        hint="another try is made by itself",
    )


def _parsed(bucket: Bucket, key: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise invalid_config(
            f"{bucket.told}: {key} is there and is none of ours (no JSON object)",
            hint="remove it, or choose another uri",
        )
    return value
