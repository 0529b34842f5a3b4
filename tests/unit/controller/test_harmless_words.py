"""What triggers, stored specs and pods say goes through one gate before a status, an Event or a log shows it."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.world import World, manifest
from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.schedule.status import ScheduleReason, ScheduleState, TrainingScheduleStatus
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.events import EventRecorder
from trainyard.controller.logs import JsonFormatter, TextFormatter
from trainyard.controller.runs.status import Standing, stand
from trainyard.controller.schedules import status as schedules

SECRET = "s3cr3t-w0rd"
SAID = f"no answer from https://user:{SECRET}@host/path?X-Amz-Signature={SECRET} (token={SECRET})"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_status_of_a_run_and_of_a_schedule() -> None:
    run = stand(TrainingRunStatus(), Standing(State.PENDING, Reason.PENDING, SAID), generation=1, now=NOW)
    standing = schedules.Standing(ScheduleState.INVALID, ScheduleReason.INVALID_SPEC, SAID)
    schedule = schedules.stand(TrainingScheduleStatus(), standing, suspended=False, generation=1, now=NOW)
    for status in (run, schedule):
        text = status.model_dump_json()
        assert "no answer from https://host/path" in text
        assert SECRET not in text


def test_the_end_of_an_attempt_with_its_log() -> None:
    world = World(run=manifest(backoffLimit=0))
    world.settle()
    record = {"outcome": "Failed", "message": SAID, "hint": SAID, "lastLogLines": [SAID]}
    world.end(exit_code=1, record=record)
    world.settle()
    assert world.status().state == "Failed"
    assert SECRET not in json.dumps(world.run["status"])


async def test_events(kube: FakeKube, cluster: Cluster) -> None:
    events = EventRecorder(cluster, clock=FakeClock())
    run: dict[str, Any] = manifest()
    events.record(run, type="Warning", reason="TriggerUnreachable", message=SAID)
    assert SECRET not in str(events._pending.get_nowait())


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_log_lines(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("x", logging.WARNING, "file", 1, "told: %s", (SAID,), None)
    assert SECRET not in formatter.format(record)
