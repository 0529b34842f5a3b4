"""The verdict of the gates in the status: the run did what it was asked, and the condition says how good its result is."""

from typing import Any

import pytest

from tests.unit.controller.runs.crd_schema import faults
from tests.unit.controller.runs.world import World, condition, until_training
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.runs.announce import notices


def judged(verdict: str, **more: Any) -> dict[str, Any]:
    gate = {
        "metric": "exactMatch",
        "verdict": verdict,
        "value": 0.9,
        "reference": 0.8,
        "gain": 0.1,
        "interval": [0.02, 0.18],
        "n": 200,
        "confidence": 0.95,
        "message": "exactMatch 0.9 over 200 records",
    }
    told = {"metrics": {"exactMatch": 0.9}, "verdict": verdict, "gates": [gate | more], "message": "told"}
    return {"evaluation": told | {"comparedWith": "models:/agent@champion (version 3)"}}


def ended(record: dict[str, Any]) -> World:
    world = World()
    until_training(world)
    world.end(record={"stepNumber": 10, "totalSteps": 10})
    world.settle()
    world.end(record=record)
    world.settle()
    return world


@pytest.mark.parametrize(("verdict", "passed"), [("Promote", "True"), ("Reject", "False"), ("Inconclusive", "False")])
def test_a_run_succeeds_whatever_the_verdict_and_the_condition_tells_it(verdict: str, passed: str) -> None:
    world = ended(judged(verdict))
    status = world.status()
    assert status.state == "Succeeded"
    assert condition(world, "Complete") == ("True", "Succeeded")
    assert condition(world, "GatesPassed") == (passed, verdict)
    assert status.evaluation is not None
    assert status.evaluation.verdict == verdict
    assert status.evaluation.compared_with == "models:/agent@champion (version 3)"
    (gate,) = status.evaluation.gates or ()
    assert (gate.value, gate.reference, gate.gain, gate.interval, gate.n) == (
        "0.9",
        "0.8",
        "0.1",
        ["0.02", "0.18"],
        200,
    )
    assert list(faults(status.model_dump(by_alias=True, exclude_none=True))) == []


def test_without_gates_there_is_no_such_condition() -> None:
    world = ended({"evaluation": {"metrics": {"loss": 2.5}}})
    assert condition(world, "GatesPassed") is None


def test_the_verdict_is_an_event_once() -> None:
    world = ended(judged("Reject"))
    after = world.status()
    found = [n for n in notices(TrainingRunStatus(), after) if n.reason == "Reject"]
    assert [(n.type, n.message) for n in found] == [("Warning", "told")]
    assert not [n for n in notices(after, after) if n.reason == "Reject"]


def test_the_condition_keeps_its_time_while_nothing_changes() -> None:
    world = ended(judged("Promote"))
    before = world.status().conditions
    world.pass_time(500)
    world.settle()
    assert world.status().conditions == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_value_that_is_no_number_is_left_out(value: Any) -> None:
    world = ended(judged("Reject", value=value, interval=[value, 0.5]))
    assert world.status().evaluation is not None
    assert condition(world, "GatesPassed") == ("False", "Reject")
    (gate,) = world.status().evaluation.gates or ()  # type: ignore[union-attr]
    assert gate.value is None
    assert gate.interval == ["nan", "0.5"]
