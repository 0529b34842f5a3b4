"""What the tests of the collectors share: a place with a pod's folders, and a run of one dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.webserver import Asked, Reply
from trainyard.api import API_VERSION
from trainyard.api.manifest import parse_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect import Record
from trainyard.trainer.data.collect.run import collected

MOMENT = datetime(2026, 11, 1, 2, tzinfo=UTC)
"""The time at which runs of these tests look back."""


def context(place: Path, *, moment: datetime | None = MOMENT, **dataset: Any) -> RunContext:
    """A prepare step of a run with one dataset called d."""
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": "r"},
        "spec": {
            "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
            "datasets": [{"name": "d", **dataset}],
            "training": {"method": "Pretrain", "maxSteps": 1},
        },
    }
    for name in ("volumes", "secrets", "work"):
        (place / name).mkdir(exist_ok=True)
    return RunContext(
        run=parse_run(manifest),
        step="prepare",
        attempt=1,
        uid="u",
        work_dir=place / "work",
        cache_dir=place / "cache",
        volumes_dir=place / "volumes",
        secrets_dir=place / "secrets",
        progress_url=None,
        token_file=place / "token",
        moment=moment,
    )


def records(place: Path, *, moment: datetime | None = MOMENT, **dataset: Any) -> list[Record]:
    """All raw records of the dataset."""
    run = context(place, moment=moment, **dataset)
    return list(collected(run.datasets[0], run))


def begin_anew(place: Path) -> None:
    """Forget what was fetched."""
    work = place / "work"
    if work.exists():
        work.rename(place / f"work-{len(list(place.iterdir()))}")


def secret(place: Path, **values: str) -> dict[str, str]:
    """A mounted Secret called login."""
    folder = place / "secrets" / "login"
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in values.items():
        (folder / key.replace("ca_crt", "ca.crt")).write_text(value + "\n")
    return {"name": "login"}


def times(reply: Callable[[Asked], Reply], first: list[Reply]) -> Callable[[Asked], Reply]:
    """Answers the first requests as listed, then as usual."""
    waiting = [replace(r) for r in first]
    return lambda asked: waiting.pop(0) if waiting else reply(asked)
