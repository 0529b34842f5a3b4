"""Checkpoints that are written while the training goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.training.runs import Run
from trainyard.api.exitcodes import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WAITS_FOR_THE_TRAINING = """
import threading
import trainyard.trainer.volume.commit as commit
from trainyard.trainer.methods.trainer import CommittingTrainer
reached = threading.Event()
step, flush = CommittingTrainer.training_step, commit.flush_and_hash
def training_step(self, *arguments, **named):
    if self.state.global_step == 7:
        reached.set()
    return step(self, *arguments, **named)
def flush_and_hash(file):
    assert "step-00000005" not in str(file) or reached.wait(60), "the training waits for its save"
    return flush(file)
CommittingTrainer.training_step, commit.flush_and_hash = training_step, flush_and_hash
"""
FULL = """
import errno
import trainyard.trainer.volume.commit as commit
flush = commit.flush_and_hash
def flush_and_hash(file):
    if "step-00000010" in str(file):
        raise OSError(errno.ENOSPC, "No space left on device", str(file))
    return flush(file)
commit.flush_and_hash = flush_and_hash
"""
HANGS_IN_THE_MIDDLE = """
import threading
import trainyard.trainer.volume.commit as commit
flush = commit.flush_and_hash
def flush_and_hash(file):
    if "step-000000%02d" in str(file) and file.name == "%s":
        print("in the middle of a save", flush=True)
        threading.Event().wait()
    return flush(file)
commit.flush_and_hash = flush_and_hash
"""


def test_the_training_does_not_wait_and_the_copy_is_that_of_its_step(undisturbed: Run, tmp_path: Path) -> None:
    """The save of step 5 ends when step 8 is under way; what it holds is step 5 to the bit."""
    run = undisturbed.fork(tmp_path)
    run.patch = WAITS_FOR_THE_TRAINING
    run.spec["training"]["maxSteps"] = 8
    run.run("train")
    plain = run.fork(tmp_path / "plain")
    plain.run("train")
    manifests = [
        json.loads((r.work / "checkpoints" / "step-00000005" / "manifest.json").read_text())["files"]
        for r in (run, plain)
    ]
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth"):
        assert manifests[0][name]["sha256"] == manifests[1][name]["sha256"], name


def test_a_save_that_fails_in_the_background_fails_the_run(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.patch = FULL
    run.run("train", expect=ExitCode.STORAGE)
    record = run.final_record
    assert "no space is left" in record["message"]
    assert record["checkpoint"]["step"] == 5


@pytest.mark.parametrize(("step", "file"), [(5, "config.json"), (10, "optimizer.pt"), (15, "trainer_state.json")])
def test_killed_in_the_middle_of_a_background_save(undisturbed: Run, tmp_path: Path, step: int, file: str) -> None:
    run = undisturbed.fork(tmp_path)
    run.patch = HANGS_IN_THE_MIDDLE % (step, file)
    started = run.start("train")
    started.wait_for_line(lambda line: line == "in the middle of a save")
    started.kill()
    assert started.wait() == -signal.SIGKILL
    assert f"step-{step:08d}" not in run.checkpoints
    run.patch = ""
    run.run("train")
    assert run.model_digest == undisturbed.model_digest


def test_the_best_is_kept_besides_the_last(undisturbed: Run, tmp_path: Path) -> None:
    """Trained far too fast, so that the best evaluation comes before the end; known again after a restart."""
    run = undisturbed.fork(tmp_path)
    run.spec["training"] |= {"evalSteps": 3, "learningRate": 0.3, "lrSchedulerType": "constant", "warmupSteps": 0}
    run.spec["checkpoints"] = {"everySteps": 4, "keepLast": 1, "keepBest": True}
    run.spec["training"]["loggingSteps"] = 1
    run.stop("step 11/")
    run.run("train")
    newest = run.work / "checkpoints" / "step-00000030"
    state = json.loads((newest / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert json.loads((newest / "manifest.json").read_text())["best"] == {"step": best, "evalLoss": losses[best]}
    assert run.checkpoints == sorted({f"step-{best:08d}", "step-00000030"})
