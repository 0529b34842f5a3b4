"""What the demo of the agent makes of the example."""

import demo_agent
from trainyard.api.manifest import parse_run


def test_the_worse_run_is_the_same_training_for_two_steps() -> None:
    good, worse = demo_agent.manifest(), demo_agent.worse()
    assert parse_run({**worse, "metadata": {**worse["metadata"], "namespace": "mlops"}})
    assert worse["spec"]["training"]["maxSteps"] == 2
    assert worse["metadata"]["name"] != good["metadata"]["name"]
    assert {k: v for k, v in worse["spec"].items() if k != "training"} == {
        k: v for k, v in good["spec"].items() if k != "training"
    }


def test_the_question_is_one_of_the_runbook() -> None:
    title, symptom, _ = demo_agent.QUESTION.split("\n")
    runbook = str(demo_agent.repository()["docs/RUNBOOK.md"])
    assert f"## {title}\n\n**{symptom.replace('Symptom:', 'Symptom:**')}" in runbook
