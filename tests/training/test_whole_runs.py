"""Whole runs: what stands in the records, on the volume and on the wire."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run
from tests.webserver import Asked, Reply, web
from trainyard.api.exitcodes import ExitCode
from trainyard.api.progress import FinalRecord, ProgressRecord
from trainyard.trainer.volume.commit import find_damage, read_committed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_final_record_of_a_training(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.run("train")
    text = (run.folder / "termination").read_text()
    assert len(text.encode()) <= 4096
    record = FinalRecord.model_validate_json(text)
    assert (record.outcome, record.step, record.step_number, record.total_steps) == ("Succeeded", "train", 30, 30)
    assert record.checkpoint is not None
    assert record.checkpoint.step == 30
    assert (run.work.parent / record.checkpoint.path / "manifest.json").exists()
    assert record.dataset is not None
    assert record.dataset.splits == {"train": 107, "eval": 13}
    assert 3.5 < (record.metrics["loss"] or 0) < 4.5
    assert record.metrics["eval_loss"]
    assert (record.metrics["tokens_per_second"] or 0) > 0
    assert (record.metrics["memory_bytes"] or 0) > 1e8
    assert record.effective is not None
    assert record.effective["precision"] == "FP32"
    assert record.provenance is not None
    assert record.provenance["seed"] == 42
    assert record.timings is not None
    assert record.timings["training"] > 0
    assert record.timings["firstStepAfter"] > 0
    assert record.first_step == 0


def test_the_outcome_is_a_model_that_transformers_loads(undisturbed: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(undisturbed.work / "model")
    tokenizer = AutoTokenizer.from_pretrained(undisturbed.work / "model")
    ids = tokenizer("paragraph 3: the train", return_tensors="pt")
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0])
    assert text.startswith("paragraph 3: the train")
    assert model.config.use_cache


def test_evaluation_measures_and_samples(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    for part in ("model", "checkpoints"):
        (run.work / part).symlink_to(undisturbed.work / part)
    step = run.run("evaluate")
    metrics = json.loads((run.work / "evaluation" / "metrics.json").read_text())
    samples = json.loads((run.work / "evaluation" / "samples.json").read_text())
    assert 1 < metrics["metrics"]["perplexity"] < 100
    assert len(samples) == 3
    assert all(sample["prompt"] and sample["expected"] for sample in samples)
    assert run.final_record["evaluation"]["metrics"]["loss"] == metrics["metrics"]["loss"]
    assert any(line.startswith("sample 1") for line in step.lines)
    again = undisturbed.fork(tmp_path / "again")
    for part in ("model", "checkpoints"):
        (again.work / part).symlink_to(undisturbed.work / part)
    again.run("evaluate")
    assert json.loads((again.work / "evaluation" / "samples.json").read_text()) == samples


def test_evaluation_of_a_split_that_is_not_there(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    (run.work / "model").symlink_to(undisturbed.work / "model")
    run.spec["evaluation"] = {"split": "Test"}
    run.run("evaluate", expect=ExitCode.INVALID_CONFIG)
    assert "spec.evaluation.split Test: no records are held out for it" in run.final_record["message"]


def test_debug_trains_a_few_steps_and_shows_each(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec |= {"mode": "Debug", "debugSteps": 3}
    step = run.run("train")
    assert [
        line.split()[1] for line in step.lines if line.startswith("step ") and "loss" in line and "eval" not in line
    ] == [
        "1/3",
        "2/3",
        "3/3",
    ]
    assert run.final_record["totalSteps"] == 3


def test_less_data_than_a_batch(new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["datasets"] = [{"name": "one", "inline": {"text": "a single paragraph about a single train"}}]
        spec["training"] |= {"maxSteps": 3, "perDeviceTrainBatchSize": 32}

    run = new_run(change)
    run.run("prepare")
    run.run("train")
    assert run.final_record["stepNumber"] == 3
    assert run.final_record["metrics"]["loss"] > 0


def test_epochs_instead_of_steps(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    del run.spec["training"]["maxSteps"]
    run.spec["training"]["numTrainEpochs"] = 1.5
    run.run("train")
    manifest = json.loads((run.work / "data" / "manifest.json").read_text())
    per_epoch = math.ceil(math.ceil(manifest["splits"]["train"]["sequences"] / 4) / 2)
    assert run.final_record["totalSteps"] == math.ceil(1.5 * per_epoch)


def test_a_checkpoint_after_minutes_even_if_the_steps_are_far_apart(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec["checkpoints"] = {"everySteps": 1000, "everyMinutes": 0.0001, "keepLast": 50}
    run.run("train")
    assert len(run.checkpoints) > 10
    assert run.model_digest == undisturbed.model_digest


class TestDamage:
    def test_the_newest_checkpoint_is_damaged(self, undisturbed: Run, tmp_path: Path) -> None:
        run = undisturbed.fork(tmp_path)
        step = run.start("train")
        step.wait_for_line(lambda line: line.startswith("checkpoint at step 20"))
        step.kill()
        step.wait()
        newest = sorted((run.work / "checkpoints").glob("step-*"))[-1]
        weights = newest / "model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[len(raw) // 2] ^= 1
        weights.write_bytes(raw)
        resumed = run.run("train")
        assert any(f"checkpoint {newest.name} is damaged and passed over" in line for line in resumed.lines)
        assert run.model_digest == undisturbed.model_digest

    def test_all_checkpoints_are_damaged(self, undisturbed: Run, tmp_path: Path) -> None:
        run = undisturbed.fork(tmp_path)
        step = run.start("train")
        step.wait_for_line(lambda line: line.startswith("checkpoint at step 10"))
        step.kill()
        step.wait()
        for file in (run.work / "checkpoints").glob("*/optimizer.pt"):
            file.write_bytes(b"")
        run.run("train", expect=ExitCode.STORAGE)
        record = run.final_record
        assert record["reason"] == "StorageError"
        assert "checkpoints in" in record["message"]
        assert "optimizer.pt has 0 bytes instead of" in record["message"]

    def test_the_final_model_is_damaged(self, undisturbed: Run, tmp_path: Path) -> None:
        run = undisturbed.fork(tmp_path)
        run.run("train")
        (run.work / "model" / "model.safetensors").write_bytes(b"")
        again = run.run("train")
        assert any("model/ is damaged and made again" in line for line in again.lines)
        assert run.model_digest == undisturbed.model_digest

    def test_a_full_volume(self, undisturbed: Run, tmp_path: Path) -> None:
        """A file system of 700 kB under the checkpoints: exit code 74, and the reason."""
        run = undisturbed.fork(tmp_path)
        folder = run.work / "checkpoints"
        folder.mkdir()
        image, mount = tmp_path / "small.img", folder
        subprocess.run(["truncate", "-s", "700K", str(image)], check=True)
        made = subprocess.run(["mkfs.ext2", "-q", str(image)], capture_output=True, check=False)
        mounted = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True, check=False)
        if made.returncode or mounted.returncode:
            pytest.skip("needs the right to mount a small file system")
        try:
            run.run("train", expect=ExitCode.STORAGE)
            record = run.final_record
            assert record["reason"] == "StorageError"
            assert "no space is left" in record["message"]
            assert "spec.storage.checkpoints.size" in record["hint"]
            for kept in folder.glob("step-*"):  # the first may have fitted
                committed = read_committed(kept)
                assert committed is not None
                assert find_damage(committed) is None, "nothing half-written looks whole"
        finally:
            subprocess.run(["umount", str(mount)], check=True)


OUT_OF_MEMORY = """
import torch
from trainyard.trainer.methods.trainer import CommittingTrainer
original = CommittingTrainer.training_step
def training_step(self, *arguments, **named):
    if self.state.global_step == 7:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return original(self, *arguments, **named)
CommittingTrainer.training_step = training_step
"""


def test_a_device_out_of_memory_has_its_exit_code_and_keeps_the_checkpoint(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec["onOutOfMemory"] = "Fail"
    run.patch = OUT_OF_MEMORY
    run.run("train", expect=ExitCode.DEVICE_OUT_OF_MEMORY)
    record = run.final_record
    assert record["reason"] == "DeviceOutOfMemory"
    assert record["message"].startswith(
        "the device ran out of memory: CUDA out of memory. Tried to allocate 20.00 GiB."
    )
    assert "lower spec.training.perDeviceTrainBatchSize" in record["hint"]
    assert record["checkpoint"]["step"] == 7, "the last whole step is kept"
    assert record["stepNumber"] == 7


def test_a_loss_that_is_not_a_number_ends_the_run(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec["training"] |= {
        "optim": "sgd",
        "learningRate": 10,
        "maxGradNorm": 0,
        "extraArgs": {"optim_args": "momentum=5.0"},
    }
    run.spec["training"] |= {"lrSchedulerType": "constant", "warmupSteps": 0, "maxSteps": 200, "loggingSteps": 1}
    run.run("train", expect=1)
    assert "the loss is not a number at step" in run.final_record["message"]
    assert "lower spec.training.learningRate" in run.final_record["hint"]


class TestAnotherRunsCheckpoint:
    def test_goes_on_from_its_step(self, undisturbed: Run, tmp_path: Path) -> None:
        """Ten steps in one run, the rest in another: the same weights as thirty in one."""
        first = undisturbed.fork(tmp_path)
        started = first.start("train")
        started.wait_for_line(lambda line: line.startswith("checkpoint at step 10"))
        started.kill()
        started.wait()
        second = Run(first.zygote, first.folder, first.spec, "second")
        second.spec["checkpoints"]["resumeFrom"] = "tiny"
        second.run("prepare")
        step = second.run("train")
        assert any("going on from tiny-0a1b2c3d/checkpoints/step-" in line for line in step.lines)
        assert second.model_digest == undisturbed.model_digest

    def test_that_is_at_the_end_already(self, undisturbed: Run, tmp_path: Path) -> None:
        first = undisturbed.fork(tmp_path)
        first.run("train")
        second = Run(first.zygote, first.folder, first.spec, "second")
        second.spec["checkpoints"]["resumeFrom"] = "tiny"
        second.run("prepare")
        second.run("train", expect=ExitCode.INVALID_CONFIG)
        assert "is at step 30 already, and the run ends at step 30" in second.final_record["message"]


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[ProgressRecord]]]:
    records: list[ProgressRecord] = []

    def accept(asked: Asked) -> Reply:
        records.append(ProgressRecord.model_validate_json(asked.body))
        return Reply(status=204)

    with web(accept) as server:
        yield f"{server.url}/v1/runs/default/tiny/progress", records


def test_progress_on_the_wire(undisturbed: Run, tmp_path: Path, receiver: tuple[str, list[ProgressRecord]]) -> None:
    url, records = receiver
    run = undisturbed.fork(tmp_path)
    run.environment["TRAINYARD_PROGRESS_URL"] = url
    run.run("train")
    assert records[0].phase == "load"
    assert [r.sequence for r in records] == sorted({r.sequence for r in records})
    assert {r.checkpoint.step for r in records if r.checkpoint} == {5, 10, 15, 20, 25, 30}
    percentages = [r.percentage for r in records if r.percentage is not None]
    assert percentages == sorted(percentages)
    last = records[-1]
    assert (last.step_number, last.total_steps, last.percentage) == (30, 30, 100.0)
    assert last.metrics["loss"] is not None
    etas = [r.estimated_remaining_seconds for r in records if r.estimated_remaining_seconds is not None]
    assert etas
    assert etas[-1] == 0


def test_a_receiver_that_is_away_changes_nothing(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.environment["TRAINYARD_PROGRESS_URL"] = "http://127.0.0.1:9/nobody"
    run.run("train")
    assert run.model_digest == undisturbed.model_digest


class TestDryRun:
    def test_reports_data_model_and_steps(self, new_run: Callable[..., Run]) -> None:
        run = new_run()
        run.spec["mode"] = "DryRun"
        run.spec["datasets"].append({"name": "again", "inline": {"text": "one\n\none\n\ntwo"}})
        run.spec["datasets"].append({"name": "held", "inline": {"text": "two"}, "role": "Test"})
        step = run.run("validate")
        report = json.loads((run.work / "validation" / "report.json").read_text())
        assert report["data"]["splits"]["train"]["records"] == 110
        assert report["data"]["duplicates"] == 2
        assert report["data"]["leaked"] == 1
        assert report["training"]["steps"] == 30
        assert report["model"]["parameters"] > 20_000
        assert any("records stand in a training data set and in one that is held out" in line for line in step.lines)
        assert run.final_record["outcome"] == "Succeeded"
        assert run.final_record["effective"]["parameters"] == report["model"]["parameters"]

    def test_its_numbers_are_those_of_the_training(self, undisturbed: Run, new_run: Callable[..., Run]) -> None:
        from safetensors import safe_open

        run = new_run()
        run.run("validate")
        report = json.loads((run.work / "validation" / "report.json").read_text())
        with safe_open(undisturbed.work / "model" / "model.safetensors", framework="np") as tensors:
            stored = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
        assert report["model"]["parameters"] == stored
        prepared = json.loads((undisturbed.work / "data" / "manifest.json").read_text())
        assert report["data"]["digest"] == prepared["digest"]
        for split in ("train", "eval"):
            assert report["data"]["splits"][split]["tokens"] == prepared["splits"][split]["tokens"]

    @pytest.mark.parametrize(
        ("change", "code", "message"),
        [
            (lambda s: s["training"].update(extraArgs={"nope": 1}), ExitCode.INVALID_CONFIG, "extraArgs.nope"),
            (lambda s: s["model"]["scratch"].update(architecture="lama"), ExitCode.INVALID_CONFIG, "'lama'"),
            (
                lambda s: s["datasets"].append({"name": "x", "storageUri": "pvc://no/x.jsonl"}),
                ExitCode.INVALID_DATA,
                "claim no is not mounted",
            ),
        ],
    )
    def test_finds_what_training_would_find(
        self, new_run: Callable[..., Run], change: Callable[[dict[str, Any]], None], code: int, message: str
    ) -> None:
        run = new_run(change)
        run.run("validate", expect=code)
        assert message in run.final_record["message"]
        assert not list(run.work.glob(".tmp-*"))
