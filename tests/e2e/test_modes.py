"""Modes of a run, scripts of one's own, and a second training that builds on the result of the first."""

import json

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import Kube
from tests.e2e.scripted import IMAGE, counting
from tests.e2e.volumes import work_folder
from trainyard.controller.kube.resources import PVCS

pytestmark = pytest.mark.timeout(400)


def test_a_dry_run_checks_and_stops(kube: Kube, space: str) -> None:
    runs.apply(kube, space, runs.tiny("rehearsal", mode="DryRun"))
    run = runs.until_succeeded(kube, space, "rehearsal", seconds=90)
    assert [s["name"] for s in run["status"]["steps"]] == ["validate"]
    assert run["status"]["dataset"]["records"] > 0
    assert "outputs" not in run["status"]
    assert not list(work_folder(kube, run).glob("model"))


def test_a_dry_run_finds_what_a_training_would_stumble_over(kube: Kube, space: str) -> None:
    records = [{"text": "fine"}, {"txt": "not fine"}]
    wrong = runs.tiny("stumbles", mode="DryRun", datasets=[{"name": "two", "inline": {"records": records}}])
    runs.apply(kube, space, wrong)
    run = runs.until_finished(kube, space, "stumbles", seconds=90)
    assert runs.has(run, "Failed")
    assert run["status"]["failure"]["reason"] == "InvalidData"
    assert "dataset two:2" in runs.message(run)


def test_debug_trains_a_few_steps_and_logs_each(kube: Kube, space: str) -> None:
    training = {"maxSteps": 100_000, "loggingSteps": 1000}
    runs.apply(kube, space, runs.tiny("look", mode="Debug", debugSteps=7, training=training))
    run = runs.until_succeeded(kube, space, "look", seconds=200)
    assert run["status"]["summary"]["step"] == "7/7"
    pod = runs.pods(kube, space, "look", step="train")[0]["metadata"]["name"]
    log = kube.log(space, pod)
    for step in range(1, 8):
        assert f"step {step}/7" in log


def test_a_script_of_ones_own_shows_its_progress(kube: Kube, space: str) -> None:
    """In the words of transformers' KubeflowCallback, which any Hugging Face Trainer speaks."""
    runs.apply(kube, space, counting("own", steps=40, pause=0.3))
    run = runs.until(kube, space, "own", lambda r: runs.step_number(r) > 0, seconds=60, what="progress")
    trainer = run["status"]["trainerStatus"]
    assert trainer["totalSteps"] == 40
    assert runs.state(run) == "Training"
    assert {m["name"] for m in trainer["metrics"]} == {"loss"}
    run = runs.until_succeeded(kube, space, "own", seconds=90)
    assert run["status"]["summary"] | {"node": ""} == {
        "method": "Script",
        "progress": "100%",
        "step": "40/40",
        "loss": "0.0244",
        "node": "",
    }


def test_a_script_is_asked_to_stop_and_goes_on(kube: Kube, space: str) -> None:
    """Exit code 75 after SIGTERM: the script's own checkpoint, the operator's own suspend."""
    runs.apply(kube, space, counting("stoppable", steps=100, pause=0.2, save=1000))
    runs.until(kube, space, "stoppable", lambda r: runs.step_number(r) > 3, seconds=60, what="some steps")
    runs.suspend(kube, space, "stoppable", True)
    runs.until(kube, space, "stoppable", lambda r: runs.has(r, "Suspended"), seconds=60, what="Suspended")
    assert runs.pods(kube, space, "stoppable") == []
    runs.suspend(kube, space, "stoppable", False)
    run = runs.until_succeeded(kube, space, "stoppable", seconds=90)
    log = kube.log(space, runs.pods(kube, space, "stoppable")[0]["metadata"]["name"])
    assert "begins at step 0" not in log
    assert len(set((work_folder(kube, run) / "steps.log").read_text().split())) == 100


def test_lora_on_the_result_of_an_earlier_run(kube: Kube, space: str) -> None:
    shared = {"checkpoints": {"claimName": "models", "size": "1Gi", "retain": True}}
    runs.apply(kube, space, runs.tiny("base", training={"maxSteps": 20}, storage=shared))
    base = runs.until_succeeded(kube, space, "base", seconds=250)
    conversations = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(40)
    ]
    tuned = runs.tiny(
        "tuned",
        model={"storageUri": base["status"]["outputs"]["uri"], "adapter": {"lora": {"rank": 4, "alpha": 8}}},
        datasets=[
            {"name": "talks", "inline": {"records": conversations}, "format": "Messages", "split": {"eval": 0.1}}
        ],
        training={"method": "SFT", "maxSteps": 10},
    )
    runs.apply(kube, space, tuned)
    run = runs.until_succeeded(kube, space, "tuned", seconds=250)
    folder = work_folder(kube, run)
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["r"] == 4
    assert list((folder / "adapter").glob("*.safetensors"))
    assert (folder / "model" / "config.json").exists(), "merge is the default: model/ can be loaded by itself"
    metrics = runs.evaluated(run)
    assert metrics["loss"] > 0
    assert kube.get(PVCS, space, "models") is not None
    measure.record("lora", evaluation=metrics, model=run["status"]["summary"]["model"])


def test_a_transformers_script_reports_by_itself(kube: Kube, space: str) -> None:
    """The example of the documentation, word for word, and no line in it knows of Trainyard's receiver."""
    for document in runs.example("existing-script"):
        runs.create_any(kube, space, document)
    run = runs.until_succeeded(kube, space, "existing-script", seconds=300)
    assert run["spec"]["image"] == IMAGE
    trainer = run["status"]["trainerStatus"]
    # It reports at both ends and every five seconds between them. The last report names the percentage alone, so the step
    # is that of the report before, and a machine that is done within five seconds never tells one.
    assert trainer["totalSteps"] == 200
    assert 0 < trainer.get("step", 200) <= 200
    assert trainer["progressPercentage"] == 100
    assert float(run["status"]["summary"]["loss"]) < 3.5
