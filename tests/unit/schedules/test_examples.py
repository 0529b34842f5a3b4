"""The examples are schedules that would start runs."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainyard.api.manifest import read_documents
from trainyard.api.trainingschedule import TrainingSchedule
from trainyard.controller.schedules.observed import ScheduleRef
from trainyard.controller.schedules.validity import faults

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("schedule-*/*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.parent.name)
def test_examples_are_valid_with_all_their_variants(path: Path) -> None:
    (document,) = read_documents(path.read_text())
    parsed = TrainingSchedule.model_validate(document.value)
    schedule = ScheduleRef(
        name=parsed.metadata.name,
        namespace="lab",
        uid="u",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        spec=parsed.spec,
        raw_spec=document.value["spec"],
    )
    assert faults(schedule) == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
