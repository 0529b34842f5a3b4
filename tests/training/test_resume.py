"""A training that is killed or told to stop ends with the very weights it would have had without."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.runs import Run, Step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def step_of(line: str) -> int | None:
    """The number in `step 7/30 (...)`."""
    return int(line.split()[1].split("/")[0]) if line.startswith("step ") else None


def until_step(step: Step, number: int) -> None:
    step.wait_for_line(lambda line: (step_of(line) or 0) >= number)


def losses(run: Run) -> dict[int, float]:
    state = json.loads((run.work / "checkpoints" / "step-00000030" / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def test_two_undisturbed_runs_are_bit_equal(undisturbed: Run, tmp_path: Path) -> None:
    once, again = undisturbed.fork(tmp_path / "once"), undisturbed.fork(tmp_path / "again")
    for run in (once, again):  # other tests take further steps in the shared one's folder
        run.run("train")
        assert run.model_digest == undisturbed.model_digest
    provenance = again.final_record["provenance"]
    assert provenance == once.final_record["provenance"]
    assert {"torch", "transformers", "trl", "python", "seed", "datasetDigest"} <= provenance.keys()


def test_another_seed_gives_other_weights(undisturbed: Run, tmp_path: Path) -> None:
    other = undisturbed.fork(tmp_path)
    other.spec["training"]["seed"] = 7
    other.run("train")
    assert other.model_digest != undisturbed.model_digest


def test_killed_at_random_moments(undisturbed: Run, tmp_path: Path) -> None:
    """SIGKILL five times, wherever it hits: in a step, in an evaluation, in the middle of a save."""
    run = undisturbed.fork(tmp_path)
    run.spec["training"]["loggingSteps"] = 1
    chance = random.Random(20)
    for _ in range(5):
        step = run.start("train")
        reached = step.wait_for_line(lambda line: line.startswith(("step ", "training is complete")))
        if reached.startswith("step "):
            until = (step_of(reached) or 0) + chance.randrange(8)
            if until < 30:
                until_step(step, until)
                if chance.random() < 0.5:  # about the time of a save
                    step.wait_for_line(lambda line: line.startswith(("checkpoint at", "model:")))
        step.kill()
        assert step.wait() in (-signal.SIGKILL, 0)
    run.run("train")
    assert run.model_digest == undisturbed.model_digest
    assert not list(run.work.rglob(".tmp-*")), "leftovers of the killed saves"


@pytest.mark.parametrize("after", [1, 9, 16])
def test_stopped_and_resumed(undisturbed: Run, tmp_path: Path, after: int) -> None:
    """SIGTERM: exit code 75, a checkpoint of the very step, and nothing trained twice."""
    run = undisturbed.fork(tmp_path)
    run.spec["training"]["loggingSteps"] = 1
    run.stop(f"step {after}/")
    record = run.final_record
    assert record["outcome"] == "Resume"
    stopped_at = record["checkpoint"]["step"]
    assert stopped_at >= after
    assert record["stepNumber"] == stopped_at
    assert (run.work.parent / record["checkpoint"]["path"] / "manifest.json").exists()

    resumed = run.start("train")
    first = resumed.wait_for_line(lambda line: line.startswith("step "))
    assert step_of(first) == stopped_at + 1
    assert f"({(stopped_at + 1) / 30:.1%})" in first, "the percentage goes on where it was"
    assert resumed.wait() == 0
    assert run.final_record["firstStep"] == stopped_at
    assert run.model_digest == undisturbed.model_digest


def test_the_loss_of_a_resumed_logging_interval_is_that_of_the_whole_interval(undisturbed: Run, tmp_path: Path) -> None:
    """Logged every 4 steps, stopped in between: the line after the restart shows the same average as without it."""
    run = undisturbed.fork(tmp_path)
    run.stop("checkpoint at step 10")
    run.run("train")
    assert losses(run) == losses(undisturbed)


def test_lora_is_resumed_exactly(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    """The adapter's weights, its optimizer and its dropout go on too; merged, the model is the same to the bit."""

    def change(spec: dict) -> None:  # type: ignore[type-arg]
        spec["model"] = {
            "storageUri": f"file://{undisturbed.work / 'model'}",
            "adapter": {"lora": {"rank": 4, "dropout": 0.1}},
        }
        spec["training"] |= {"method": "SFT", "maxSteps": 12, "evalSteps": None}
        spec["training"] = {k: v for k, v in spec["training"].items() if v is not None}

    whole = new_run(change)
    whole.run("prepare")
    whole.run("train")
    run = whole.fork(whole.folder.parent / "stopped")
    run.spec["training"]["loggingSteps"] = 1
    run.stop("step 6/")
    run.run("train")
    assert run.model_digest == whole.model_digest
    assert (run.work / "adapter" / "adapter_model.safetensors").exists()
    assert whole.model_digest != undisturbed.model_digest


def test_a_finished_training_is_not_repeated(undisturbed: Run, tmp_path: Path) -> None:
    step = undisturbed.run("train")
    assert any("training is complete" in line for line in step.lines)
    assert undisturbed.final_record["outcome"] == "Succeeded"
    assert undisturbed.final_record["stepNumber"] == 30


def test_killed_after_the_last_step_the_result_tells_the_same_losses(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    shutil.copytree(undisturbed.work / "checkpoints", run.work / "checkpoints")
    run.run("train")
    assert run.final_record["firstStep"] == 30, "nothing was left to train"
    card = (run.work / "model" / "README.md").read_text()
    assert "| held-out loss |" in card
    assert card == (undisturbed.work / "model" / "README.md").read_text()
    assert run.model_digest == undisturbed.model_digest


def test_only_the_newest_checkpoints_are_kept(undisturbed: Run) -> None:
    assert undisturbed.checkpoints == ["step-00000020", "step-00000025", "step-00000030"]
