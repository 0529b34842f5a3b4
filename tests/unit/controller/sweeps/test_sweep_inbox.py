"""Which events are news to a sweep."""

import copy
from typing import Any

import pytest

from tests.unit.controller.sweeps.world import ASHA, manifest
from trainyard.controller.sweeps.inbox import SweepInbox

KEY = ("lab", "tune")


class Keys:
    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def add(self, key: tuple[str, str], *, urgent: bool = False) -> None:
        self.all.append(key)

    def add_after(self, key: tuple[str, str], seconds: float) -> None:
        self.all.append(key)

    def news(self) -> int:
        found, self.all = len(self.all), []
        return found


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def inbox(keys: Keys) -> SweepInbox:
    inbox = SweepInbox(queue=keys)
    inbox.sweep_event("ADDED", manifest(earlyStopping=ASHA))
    assert keys.all == [KEY]
    keys.news()
    return inbox


def run(step: int = 0, state: str = "Training", **spec: Any) -> dict[str, Any]:
    labels = {"trainyard.dev/sweep": "tune"}
    return {
        "metadata": {"namespace": "lab", "name": "tune-1", "uid": "u", "labels": labels},
        "spec": spec,
        "status": {"state": state, "trainerStatus": {"step": step}},
    }


def test_a_sweeps_own_status_is_no_news_and_its_spec_is(inbox: SweepInbox, keys: Keys) -> None:
    changed = copy.deepcopy(manifest(earlyStopping=ASHA)) | {"status": {"state": "Running"}}
    inbox.sweep_event("MODIFIED", changed)
    assert keys.news() == 0
    changed["metadata"]["generation"] = 2
    inbox.sweep_event("MODIFIED", changed)
    assert keys.news() == 1
    inbox.sweep_event("DELETED", changed)
    assert keys.news() == 1


def test_of_progress_only_a_passed_rung_is_news(inbox: SweepInbox, keys: Keys) -> None:
    told = []
    for step in (0, 5, 10, 11, 20, 30, 31, 60):
        inbox.run_event("MODIFIED", run(step))
        told.append(keys.news())
    assert told == [1, 0, 0, 1, 0, 0, 1, 0]


def test_state_suspension_and_end_of_a_run_are_news(inbox: SweepInbox, keys: Keys) -> None:
    for event, changed in (
        ("ADDED", run(state="Pending")),
        ("MODIFIED", run()),
        ("MODIFIED", run(suspend=True)),
        ("MODIFIED", run(state="Suspended", suspend=True)),
        ("DELETED", run(state="Suspended", suspend=True)),
    ):
        inbox.run_event(event, changed)
        assert keys.news() == 1, changed


def test_runs_of_nobodys_sweep_are_none_of_its_business(inbox: SweepInbox, keys: Keys) -> None:
    stranger = run()
    stranger["metadata"]["labels"] = {}
    inbox.run_event("ADDED", stranger)
    assert keys.news() == 0


def test_an_odd_spec_has_no_rungs(keys: Keys) -> None:
    inbox = SweepInbox(queue=keys)
    for asha in ({}, {"minimumSteps": "x", "reductionFactor": None, "rungs": 2}):
        inbox.sweep_event(None, manifest(earlyStopping={"asha": asha}))
    assert keys.all == [KEY, KEY]
