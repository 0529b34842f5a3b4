"""The examples are schedules that would start runs."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import ROOT
from trainyard.api.manifest import parse_run, read_documents
from trainyard.api.run.trainingrun import TrainingRun
from trainyard.api.schedule.children import ScheduleRef, child_spec
from trainyard.api.schedule.trainingschedule import TrainingSchedule
from trainyard.api.schedule.validity import faults

FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.glob("schedule-*/*.yaml"))


def schedule_of(path: Path) -> ScheduleRef:
    (document,) = read_documents(path.read_text())
    parsed = TrainingSchedule.model_validate(document.value)
    return ScheduleRef(
        name=parsed.metadata.name,
        namespace="lab",
        uid="u",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        spec=parsed.spec,
        raw_spec=document.value["spec"],
    )


def runs_of(topic: str) -> dict[str, TrainingRun]:
    """The run of each variant, as the schedule would make it."""
    schedule = schedule_of(FOLDER / topic / "trainingschedule.yaml")
    head = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": {"name": "run"}}
    return {v.name: parse_run(head | {"spec": child_spec(schedule, v)}) for v in schedule.spec.variants}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.parent.name)
def test_examples_are_valid_with_all_their_variants(path: Path) -> None:
    assert faults(schedule_of(path)) == []


def test_the_batch_compares_five_methods_on_data_of_their_kind() -> None:
    made = runs_of("schedule-batch")
    assert {name: run.spec.training.method.upper() for name, run in made.items()} == {
        "sft": "SFT",
        "dpo": "DPO",
        "orpo": "ORPO",
        "ppo": "PPO",
        "cpt": "CPT",
    }
    assert {run.spec.model.storage_uri for run in made.values()} == {"hf://HuggingFaceTB/SmolLM2-135M-Instruct"}
    formats = {name: run.spec.datasets[0].format for name, run in made.items()}
    assert (formats["sft"], formats["dpo"], formats["orpo"], formats["ppo"]) == (
        "Messages",
        "Preference",
        "Preference",
        "Prompt",
    )
    assert (made["ppo"].spec.training.num_train_epochs, made["ppo"].spec.training.max_steps) == (None, 500)


def test_the_three_agents_learn_from_data_of_their_own() -> None:
    made = runs_of("schedule-agents")
    assert {name: run.spec.datasets[0].storage_uri for name, run in made.items()} == {
        name: f"s3://agents/sre/{name}.jsonl" for name in ("triage", "remediation", "postmortem")
    }
    epochs = {name: run.spec.training.num_train_epochs for name, run in made.items()}
    assert epochs == {"triage": 2, "remediation": 3, "postmortem": 2}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
