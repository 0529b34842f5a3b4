"""What a run may ask of any training, asked of a Tiny Recursive Model: checkpoints, memory, room, origin."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run, Zygote
from tests.training.test_trm import digests, trm_spec
from trainyard.api.exitcodes import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LINE = re.compile(r"step (\d+)/30 .* loss (\S+)")


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained without anything in its way."""
    run = Run(zygote, tmp_path_factory.mktemp("rules"), trm_spec(), labels={"trainyard.dev/git-commit": "abc123"})
    run.run("prepare")
    run.run("train")
    return run


def losses(*lines: str) -> dict[int, float]:
    return {int(found[1]): float(found[2]) for line in lines if (found := LINE.match(line))}


def manifest_of(run: Run, step: int) -> Path:
    return run.work / "checkpoints" / f"step-{step:08d}" / "manifest.json"


class TestCheckpoints:
    def test_those_that_are_too_old_are_let_go(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        run.spec["checkpoints"] = {"everySteps": 5, "keepLast": 50, "maxAgeDays": 1}
        run.stop("step 12/")
        before = run.checkpoints
        assert before[:2] == ["step-00000005", "step-00000010"]
        for step in (5, 10):
            told = json.loads(manifest_of(run, step).read_text())
            manifest_of(run, step).write_text(json.dumps(told | {"time": "2020-01-01T00:00:00Z"}))
        run.run("train")
        assert run.checkpoints == sorted({*before[2:], "step-00000015", *(f"step-000000{n}" for n in (20, 25, 30))})
        assert digests(run) == digests(whole)

    BEST_AT_NINE = """
from trainyard.trainer.trm.state import Best
offer = Best.offer
Best.offer = lambda self, exact, tokens, *, step, weights: offer(
    self, 1.0 if step == 9 else 0.0, tokens, step=step, weights=weights
)
"""

    def test_the_best_is_kept_besides_the_last(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        run.patch = self.BEST_AT_NINE
        run.spec["training"]["evalSteps"] = 3
        run.spec["checkpoints"] = {"everySteps": 4, "keepLast": 1, "keepBest": True}
        run.stop("step 14/")
        again = run.run("train")
        assert run.checkpoints == ["step-00000009", "step-00000030"]
        assert json.loads(manifest_of(run, 30).read_text())["best"] == {"step": 9, "exact": 1.0}
        assert any("the weights of step 9" in line for line in again.lines)

    def test_without_measurements_keeping_the_best_has_no_effect_and_says_so(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        run.spec["training"]["evalSteps"] = None
        run.spec["checkpoints"]["keepBest"] = True
        step = run.run("train")
        assert any("spec.checkpoints.keepBest has no effect" in line for line in step.lines)


class TestRoom:
    def test_it_is_looked_for_before_the_first_step(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        run.patch = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000)"
        step = run.run("train", expect=ExitCode.STORAGE)
        assert not losses(*step.lines)
        assert "the volume has 0.0 MB for this run and the training needs" in run.final_record["message"]

    def test_what_is_said_to_be_needed_is_what_a_checkpoint_takes(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        step = run.run("train")
        told = next(found[1] for line in step.lines if (found := re.match(r"storage: .* of about (\S+) MB", line)))
        assert float(told) == pytest.approx(run.final_record["checkpoint"]["bytes"] / 1e6, rel=0.2, abs=0.1)


def test_where_the_result_comes_from(whole: Run, tmp_path: Path) -> None:
    known = whole.final_record["provenance"]
    prepared = json.loads((whole.work / "data" / "manifest.json").read_text())
    assert known["datasetDigest"] == prepared["digest"]
    assert known["gitCommit"] == "abc123"
    assert {"torch", "python", "seed", "trainerVersion"} <= known.keys()


class TestMemory:
    """A device with too little memory, played by the CPU."""

    ENOUGH_FOR_FOUR = "2500000"

    def limited(self, run: Run, limit: str) -> Run:
        run.environment["SIMULATED_DEVICE_MEMORY"] = limit
        return run

    def test_fewer_slots_at_a_time_are_the_same_training(self, whole: Run, tmp_path: Path) -> None:
        """To the bit that of a run whose spec cuts the batch so, and killed in between it is that too."""
        run = self.limited(whole.fork(tmp_path), self.ENOUGH_FOR_FOUR)
        step = run.run("train")
        effective = run.final_record["effective"]
        assert effective["outOfMemoryReductions"].split("; ") == [
            "batch 8 x 2 instead of 16 x 1, from step 0 on",
            "batch 4 x 4 instead of 8 x 2, from step 0 on",
        ]
        assert (effective["perDeviceTrainBatchSize"], effective["slotsTogether"]) == (16, 4)
        assert sum(line.startswith("step 1/") for line in step.lines) == 1, "no step was trained before it fitted"

        asked = whole.fork(tmp_path / "asked")
        asked.spec["training"] |= {"perDeviceTrainBatchSize": 4, "gradientAccumulationSteps": 4}
        asked.run("train")
        assert digests(run) == digests(asked)

        killed = self.limited(whole.fork(tmp_path / "killed"), self.ENOUGH_FOR_FOUR)
        begun = killed.start("train")
        begun.wait_for_line(lambda line: line.startswith("step 13/"))
        begun.kill()
        assert begun.wait() == -signal.SIGKILL
        again = killed.run("train")
        assert not any("ran out of memory" in line for line in again.lines), "it is remembered"
        assert digests(killed) == digests(asked)

    def test_fail_means_fail(self, whole: Run, tmp_path: Path) -> None:
        run = self.limited(whole.fork(tmp_path), self.ENOUGH_FOR_FOUR)
        run.spec["onOutOfMemory"] = "Fail"
        run.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)
        assert "onOutOfMemory: ReduceBatch" in run.final_record["hint"]
        assert not (run.work / "memory.json").exists()

    def test_a_limit_that_nothing_satisfies_ends_with_advice(self, whole: Run, tmp_path: Path) -> None:
        run = self.limited(whole.fork(tmp_path), "900000")
        run.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)
        record = run.final_record
        assert (record["outcome"], record["reason"]) == ("Failed", "DeviceOutOfMemory")
        assert "even with batch 1:" in record["message"]
        assert "spec.model.trm" in record["hint"]
        assert json.loads((run.work / "memory.json").read_text())["settings"]["per_device_train_batch_size"] == 1

    IN_A_STEP = """
import torch
from trainyard.trainer.trm import fit
original, calls = fit.judge, []
def judge(logits, *arguments, **named):
    calls.append(1)
    if len(calls) == 16 and logits.shape[1] > 4:  # the second chunk of step 8
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return original(logits, *arguments, **named)
fit.judge = judge
"""
    IN_THE_OPTIMIZER = """
import torch
from trainyard.trainer.trm.optim import Average
original, times = Average.update, []
def update(self, step):
    if step == 7 and not times:
        times.append(1)
        for value in self.values.values():
            value.add_(1.0)  # half an update
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    original(self, step)
Average.update = update
"""

    @pytest.mark.parametrize(("patch", "goes_on_from"), [(IN_A_STEP, 7), (IN_THE_OPTIMIZER, 5)])
    def test_in_the_middle(self, whole: Run, tmp_path: Path, patch: str, goes_on_from: int) -> None:
        """From the last whole step, or from the checkpoint before it where an update was half done."""
        run = whole.fork(tmp_path)
        run.spec["training"] |= {"perDeviceTrainBatchSize": 8, "gradientAccumulationSteps": 2, "evalSteps": None}
        plain = run.fork(tmp_path / "plain")
        wanted = losses(*plain.run("train").lines)
        run.patch = patch
        step = run.run("train")
        numbers = [int(found[1]) for line in step.lines if (found := LINE.match(line))]
        assert numbers == [*range(1, 8), *range(goes_on_from + 1, 31)]
        assert run.final_record["effective"]["outOfMemoryReductions"] == "batch 4 x 4 instead of 8 x 2, from step 7 on"
        assert losses(*step.lines) == pytest.approx(wanted, rel=1e-2)

    TOO_LARGE_TO_MEASURE = """
import torch
from trainyard.trainer.trm import measure
original = measure.answer
def answer(network, draw, **named):
    if len(draw) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return original(network, draw, **named)
measure.answer = answer
"""

    def test_measuring_goes_on_in_smaller_batches(self, whole: Run, tmp_path: Path) -> None:
        run = whole.fork(tmp_path)
        run.patch = self.TOO_LARGE_TO_MEASURE
        run.spec["training"]["perDeviceEvalBatchSize"] = 8
        run.run("train")
        assert run.final_record["effective"]["outOfMemoryReductions"].split("; ") == [
            "evaluation in batches of 4, from step 7 on",
            "evaluation in batches of 2, from step 7 on",
        ]
        assert digests(run) == digests(whole)
        step = run.run("evaluate")
        assert not any("ran out of memory" in line for line in step.lines), "it is remembered"
        (run.work / "memory.json").unlink()
        (run.work / "evaluation" / "manifest.json").unlink()
        measured = run.final_record["evaluation"]["metrics"]
        told = [line for line in run.run("evaluate").lines if line.startswith("the device ran out of memory")]
        assert told == [f"the device ran out of memory: evaluation in batches of {size}" for size in (4, 2)]
        assert run.final_record["evaluation"]["metrics"] == pytest.approx(measured)

        strict = whole.fork(tmp_path / "strict")
        strict.patch = self.TOO_LARGE_TO_MEASURE
        strict.spec |= {"onOutOfMemory": "Fail"}
        strict.spec["training"]["perDeviceEvalBatchSize"] = 8
        strict.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)


def test_another_run_that_is_at_the_end_already_is_refused(whole: Run, tmp_path: Path) -> None:
    spec: dict[str, Any] = {**whole.spec, "checkpoints": {"resumeFrom": "tiny"}}
    second = Run(whole.zygote, whole.folder, spec, "second")
    second.run("prepare")
    second.run("train", expect=ExitCode.INVALID_CONFIG)
    assert "is at step 30 already, and the run ends at step 30" in second.final_record["message"]
