"""Phases: each from the result of the one before, on one tokenizer, and a kill in one of them touches no other."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HUB = """
from trainyard.trainer.exports import hub
from trainyard.trainer.exports.exported import Exported
hub.check = lambda context, export, target: print("hub opens", target.repo)
def send(context, export, target, inputs, reporter):
    print("hub gets", context.model_dir.parent.name)
    return Exported("hf://org/model@1", "sha256:1")
hub.send = send
"""
WAITS_AFTER_STEP_8 = """
import threading
from trainyard.trainer.methods.trainer import CommittingTrainer
original = CommittingTrainer.training_step
def training_step(self, *arguments, **named):
    if self.state.global_step == 8:
        threading.Event().wait()
    return original(self, *arguments, **named)
CommittingTrainer.training_step = training_step
"""
ANSWERS = [{"prompt": f"which platform for train {n}? ", "completion": f"platform {n % 7}"} for n in range(40)]


def in_phases(spec: dict[str, Any]) -> None:
    spec["datasets"].append(
        {"name": "answers", "format": "PromptCompletion", "inline": {"records": ANSWERS}, "split": {"eval": 0.2}}
    )
    spec["training"] |= {"maxSteps": 12, "evalSteps": None, "loggingSteps": 1}
    spec["phases"] = [
        {"name": "pretrain", "datasets": ["stations"], "training": {"method": "Pretrain"}},
        {
            "name": "more",
            "datasets": ["stations"],
            "training": {"method": "CPT", "maxLength": 96, "learningRate": 1e-3},
        },
        {"name": "answer", "datasets": ["answers"], "training": {"method": "SFT", "learningRate": 1e-3}},
    ]
    del spec["training"]["method"]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.training.runs import tiny_spec

    spec = tiny_spec()
    in_phases(spec)
    run = Run(zygote, tmp_path_factory.mktemp("phases"), spec)
    for step in ("prepare", "train-pretrain", "train-more", "train-answer", "evaluate"):
        run.run(step)
    return run


def test_the_result_is_that_of_the_last_phase(undisturbed: Run) -> None:
    phases = undisturbed.work / "phases"
    assert (undisturbed.work / "model").resolve() == phases / "answer" / "model"
    assert len({digest(phases / name / "model") for name in ("pretrain", "more", "answer")}) == 3
    metrics = json.loads((undisturbed.work / "evaluation" / "metrics.json").read_text())
    assert metrics["records"] == sum(1 for _ in ANSWERS) - _trained_records(phases / "answer")
    assert undisturbed.final_record["step"] == "evaluate"


def _trained_records(phase: Path) -> int:
    manifest = json.loads((phase / "data" / "manifest.json").read_text())
    return int(manifest["splits"]["train"]["records"])


def test_all_phases_share_one_tokenizer_that_knows_the_text_of_all(undisturbed: Run) -> None:
    tokenizers = {
        (p / "data" / "tokenizer" / "tokenizer.json").read_text() for p in (undisturbed.work / "phases").iterdir()
    }
    assert len(tokenizers) == 1
    assert "platform" in tokenizers.pop()  # a word of the last phase's data alone


def test_the_model_is_made_for_the_longest_phase(undisturbed: Run) -> None:
    config = json.loads((undisturbed.work / "phases" / "pretrain" / "model" / "config.json").read_text())
    assert config["max_position_embeddings"] >= 96


def test_the_result_of_the_last_phase_goes_to_the_hub(undisturbed: Run) -> None:
    target = {"repo": "org/model", "secretRef": {"name": "hub"}}
    pushing = replace(undisturbed, spec={**undisturbed.spec, "pushToHub": target}, patch=HUB)
    told = {}
    for step in ("prepare", "train-more", "train-answer", "evaluate", "export-push-to-hub"):
        told[step] = [line for line in pushing.run(step).lines if line.startswith("hub ")]
    assert told == {
        "prepare": ["hub opens org/model"],
        "train-more": [],
        "train-answer": [],
        "evaluate": [],
        "export-push-to-hub": ["hub gets answer"],
    }
    debug = replace(pushing, spec={**pushing.spec, "mode": "Debug"})
    assert "hub opens org/model" not in debug.run("prepare").lines


def test_a_kill_in_a_phase_goes_on_there_and_leaves_the_others_alone(
    undisturbed: Run, new_run: Callable[..., Run]
) -> None:
    run = new_run(in_phases)
    run.run("prepare")
    run.run("train-pretrain")
    run.run("train-more")
    before = (run.work / "phases" / "more" / "model" / "model.safetensors").stat().st_mtime_ns
    run.patch = WAITS_AFTER_STEP_8
    step = run.start("train-answer")
    step.wait_for_line(lambda line: line.startswith("checkpoint at step 5"))
    step.kill()
    assert step.wait() == -signal.SIGKILL
    run.patch = ""
    again = run.run("train-answer")
    assert "going on from step-00000005" in again.lines
    assert run.final_record["step"] == "train-answer"
    path = run.final_record["checkpoint"]["path"]
    assert path == "tiny-0a1b2c3d/phases/answer/checkpoints/step-00000012"
    assert (run.work / "phases" / "more" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert digest(run.work / "model") == digest(undisturbed.work / "model")
    repeated = run.run("train-more")  # as after an operator that forgot
    assert any(line.startswith("training is complete") for line in repeated.lines)


def test_a_run_of_some_phases_starts_from_what_another_run_left(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    def only_the_last(spec: dict[str, Any]) -> None:
        in_phases(spec)
        spec["runPhases"] = ["answer"]

    run = new_run(only_the_last, name="later")
    (run.folder / "volume").mkdir(parents=True)
    (run.folder / "volume" / "tiny-0a1b2c3d").symlink_to(undisturbed.work)
    prepared = run.run("prepare")
    assert "starting from tiny-0a1b2c3d/phases/more/model" in prepared.lines
    run.run("train-answer")
    assert digest(run.work / "model") == digest(undisturbed.work / "model")


def test_a_phase_without_the_result_it_needs_says_so(new_run: Callable[..., Run]) -> None:
    def only_the_second(spec: dict[str, Any]) -> None:
        in_phases(spec)
        spec["runPhases"] = ["more"]

    run = new_run(only_the_second)
    run.run("prepare", expect=64)
    assert "starts from the result of phase pretrain, and this volume has none" in run.final_record["message"]


def test_dry_run_looks_at_every_phase(new_run: Callable[..., Run]) -> None:
    run = new_run(lambda spec: (in_phases(spec), spec.update(mode="DryRun")))
    run.run("validate")
    report = json.loads((run.work / "validation" / "report.json").read_text())
    assert [p["phase"] for p in report["phases"]] == ["pretrain", "more", "answer"]
    assert report["phases"][2]["data"]["splits"]["eval"]["records"] > 0
