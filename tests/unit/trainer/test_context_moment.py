"""At which time a run looks back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainyard.trainer.context import read_context
from trainyard.trainer.errors import UserError

CREATED = "2026-11-02T09:30:00Z"


def moment(tmp_path: Path, *, created: str = CREATED, **environment: str) -> datetime | None:
    spec = {"image": "i", "command": ["true"]}
    metadata = {"name": "r"} | ({"creationTimestamp": created} if created else {})
    manifest = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": metadata, "spec": spec}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    return read_context("prepare", {"TRAINYARD_RUN_FILE": str(tmp_path / "run.json"), **environment}).moment


def test_the_slot_of_the_schedule_comes_first(tmp_path: Path) -> None:
    slot = {"WINDOW_END": "2026-11-01T02:00:00+00:00", "SCHEDULED_TIME": "2026-11-01T03:00:00+00:00"}
    assert moment(tmp_path, **slot) == datetime(2026, 11, 1, 2, tzinfo=UTC)
    assert moment(tmp_path, SCHEDULED_TIME="2026-11-01T03:00:00Z") == datetime(2026, 11, 1, 3, tzinfo=UTC)


def test_then_the_time_it_was_created(tmp_path: Path) -> None:
    assert moment(tmp_path) == datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


def test_without_a_cluster_there_is_none(tmp_path: Path) -> None:
    assert moment(tmp_path, created="") is None


def test_what_is_no_time_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="WINDOW_END is 'tomorrow', not a time"):
        moment(tmp_path, WINDOW_END="tomorrow")
