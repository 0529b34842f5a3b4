"""A device with too little memory, played by the CPU: the run finds a way to fit, and trains the same thing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.training.runs import Run, tiny_spec
from trainyard.api.exitcodes import ExitCode
from trainyard.api.manifest import parse_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError
from trainyard.trainer.frame.out_of_memory import recall
from trainyard.trainer.frame.train import lower
from trainyard.trainer.steps import LANGUAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ENOUGH = str(1 << 40)


def limited(run: Run, limit: str | int) -> Run:
    run.environment["SIMULATED_DEVICE_MEMORY"] = str(limit)
    return run


def loss_of(run: Run) -> float:
    return float(run.final_record["metrics"]["loss"])


def test_the_probe_leaves_no_trace(undisturbed: Run, tmp_path: Path) -> None:
    run = limited(undisturbed.fork(tmp_path), ENOUGH)
    step = run.run("train")
    assert sum("the longest batch fits" in line for line in step.lines) == 1
    assert run.model_digest == undisturbed.model_digest
    assert not (run.work / "memory.json").exists()


def test_nothing_is_probed_where_there_is_no_limit(undisturbed: Run, tmp_path: Path) -> None:
    step = undisturbed.fork(tmp_path).run("train")
    assert not any("the longest batch" in line for line in step.lines)


def without_dropout(spec: dict[str, Any]) -> None:
    spec["model"]["scratch"]["config"]["attention_dropout"] = 0.0
    spec["training"] |= {"maxSteps": 12, "loggingSteps": 1}


@pytest.fixture(scope="module")
def fits(undisturbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that fits, without dropout, so that only the batch's cut makes a difference to another one."""
    run = undisturbed.fork(tmp_path_factory.mktemp("fits"))
    without_dropout(run.spec)
    run.run("train")
    return run


def weights_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = load_file(run.work / "model" / "model.safetensors")
    return found


def assert_same_training(run: Run, other: Run) -> None:
    """The same sequences in the same steps: nothing but rounding differs."""
    assert loss_of(run) == pytest.approx(loss_of(other), abs=1e-3)
    mine, others = weights_of(run), weights_of(other)
    assert max(float((mine[name] - others[name]).abs().max()) for name in others) < 2e-3


def test_a_run_that_does_not_fit_goes_down_the_ladder_and_trains_the_same(fits: Run, tmp_path: Path) -> None:
    run = limited(fits.fork(tmp_path), 1_400_000)
    step = run.run("train")
    effective = run.final_record["effective"]
    assert (effective["perDeviceTrainBatchSize"], effective["gradientAccumulationSteps"]) == (1, 8)
    assert effective["outOfMemoryReductions"].split("; ") == [
        "batch 2 x 4 instead of 4 x 2, from step 0 on",
        "batch 1 x 8 instead of 2 x 4, from step 0 on",
    ]
    assert [line for line in step.lines if line.startswith("going on with batch")]
    assert sum(line.startswith("step 1/") for line in step.lines) == 1, "no step was trained before it fitted"
    assert_same_training(run, fits)

    (run.work / "model").rename(run.work / "gone")
    again = run.run("train")
    assert not any("ran out of memory" in line for line in again.lines), "the next attempt begins where this one ended"


def test_a_limit_that_nothing_satisfies_ends_with_advice(fits: Run, tmp_path: Path) -> None:
    run = limited(fits.fork(tmp_path), 800_000)
    run.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)
    record = run.final_record
    assert (record["outcome"], record["reason"]) == ("Failed", "DeviceOutOfMemory")
    assert "even with batch 1, gradient checkpointing" in record["message"]
    for way_out in ("maxLength (now 64)", "LoRA", "GPU with more memory"):
        assert way_out in record["hint"]
    assert len(json.loads((run.work / "memory.json").read_text())["taken"]) == 3


def test_fail_means_fail(fits: Run, tmp_path: Path) -> None:
    run = limited(fits.fork(tmp_path), 2_000_000)
    run.spec["onOutOfMemory"] = "Fail"
    run.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)
    assert "onOutOfMemory: ReduceBatch" in run.final_record["hint"]
    assert not (run.work / "memory.json").exists()


IN_THE_BACKWARD_PASS = """
import torch
from trainyard.trainer.methods.trainer import CommittingTrainer
original = CommittingTrainer.training_step
def training_step(self, *arguments, **named):
    if self.state.global_step == 7 and self.args.per_device_train_batch_size > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return original(self, *arguments, **named)
CommittingTrainer.training_step = training_step
"""
IN_THE_OPTIMIZER = """
import torch
from trainyard.trainer.methods.trainer import Updating
original = Updating.on_pre_optimizer_step
times = []
def on_pre_optimizer_step(self, args, state, control, **named):
    original(self, args, state, control)
    if state.global_step == 7 and not times:
        times.append(1)
        for parameter in named["model"].parameters():
            parameter.data.add_(1.0)  # half an update
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
Updating.on_pre_optimizer_step = on_pre_optimizer_step
"""
TOO_LARGE_TO_EVALUATE = """
import torch
from trainyard.trainer.evaluation import measure
original = measure.score_tokens
def score_tokens(*arguments, batch_size, **named):
    if batch_size > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return original(*arguments, batch_size=batch_size, **named)
measure.score_tokens = score_tokens
"""


@pytest.mark.parametrize(("patch", "goes_on_from"), [(IN_THE_BACKWARD_PASS, 7), (IN_THE_OPTIMIZER, 5)])
def test_out_of_memory_in_the_middle(fits: Run, tmp_path: Path, patch: str, goes_on_from: int) -> None:
    """From the last whole step, or from the checkpoint before it where an update was half done."""
    run = fits.fork(tmp_path)
    run.patch = patch
    step = run.run("train")
    numbers = [int(line.split()[1].split("/")[0]) for line in step.lines if line.startswith("step ") and "loss" in line]
    numbers = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n]  # an evaluation has a line too
    assert numbers == [*range(1, 8), *range(goes_on_from + 1, 13)]
    assert run.final_record["effective"]["outOfMemoryReductions"] == "batch 2 x 4 instead of 4 x 2, from step 7 on"
    assert_same_training(run, fits)


def test_an_evaluation_that_does_not_fit_goes_on_in_smaller_batches(fits: Run) -> None:
    measured = []
    for patch in ("", TOO_LARGE_TO_EVALUATE):
        run = replace(fits, patch=patch)
        told = [line for line in run.run("evaluate").lines if line.startswith("the device ran out of memory")]
        measured.append(run.final_record["evaluation"]["metrics"])
        shutil.rmtree(run.work / "evaluation")
    sizes = (4, 2)
    assert told == [f"the device ran out of memory: evaluation in batches of {size}" for size in sizes]
    assert measured[1]["loss"] == pytest.approx(measured[0]["loss"], rel=1e-5)
    strict = replace(run, spec={**run.spec, "onOutOfMemory": "Fail"})
    strict.run("evaluate", expect=ExitCode.DEVICE_OUT_OF_MEMORY)


def test_one_process_of_several_leaves_it_to_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it in the middle of a step, so all have to start anew, one rung lower."""
    run = parse_run(
        {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": {"name": "a"}, "spec": tiny_spec()}
    )
    context = RunContext(run, "train", 1, "u", tmp_path, tmp_path, tmp_path, tmp_path, None, tmp_path / "token")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as raised:
        lower(context, LANGUAGE.ladder, step=3, told="full")
    assert raised.value.again
    assert recall(tmp_path, context.training).settings.per_device_train_batch_size == 2
