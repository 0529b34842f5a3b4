"""SIGTERM in every stage: exit code 75, soon, and nothing half-done is left that a later attempt would take for whole."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import ROOT, Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SOON = 20.0
"""Seconds. A grace period is 30 by default, and other work may share this machine."""


def stop(run: Run, step: str, at: Callable[[str], bool]) -> float:
    """Start a step, send SIGTERM when a line comes, return how long it took to end with 75."""
    started = run.start(step)
    started.wait_for_line(at)
    sent = time.monotonic()
    started.kill(signal.SIGTERM)
    assert started.wait() == 75, "\n".join(started.lines)
    record = run.final_record
    assert record["outcome"] == "Resume"
    assert record["step"] == step
    return time.monotonic() - sent


def test_while_importing(tmp_path: Path) -> None:
    """A process of its own, not the warm one: the signal comes long before torch is there."""
    environment = {
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}",
        "TRAINYARD_TERMINATION_LOG": str(tmp_path / "termination"),
        "TRAINYARD_RUN_FILE": "/dev/stdin",
        "PATH": "/usr/bin:/bin",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "trainyard.trainer", "train"], env=environment, stdin=subprocess.PIPE
    )
    # It blocks on reading its manifest, after the handlers are in place. That it has come so far shows in /proc.
    while "SigCgt:\t0000000000000000" in Path(f"/proc/{process.pid}/status").read_text() or not handles_sigterm(
        process.pid
    ):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON) == 75
    assert json.loads((tmp_path / "termination").read_text())["outcome"] == "Resume"


def handles_sigterm(pid: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().split("SigCgt:\t")[1].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_while_preparing(new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["datasets"] = [{"name": "big", "storageUri": "pvc://texts/all"}]
        spec["model"]["scratch"]["tokenizer"]["trainVocabSize"] = 20000

    run = new_run(change)
    texts = run.folder / "volumes" / "texts" / "all"
    texts.mkdir(parents=True)
    words = " ".join(f"{n:x}{n * 7919 % 65521:x}" for n in range(60000))
    for number in range(8):
        (texts / f"{number}.txt").write_text(words)
    # In the middle of training the tokenizer: one long call into Rust, in which no Python handler would run.
    assert stop(run, "prepare", lambda line: line.startswith("dataset big:")) < SOON
    assert not (run.work / "data").exists()
    run.run("prepare")
    assert not list(run.work.glob(".tmp-*"))


def test_while_loading_the_model(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    assert stop(run, "train", lambda line: line.startswith("model: ")) < SOON
    assert not (run.work / "checkpoints").exists()
    run.run("train")
    assert run.model_digest == undisturbed.model_digest


def test_in_the_middle_of_an_accumulated_step(undisturbed: Run, tmp_path: Path) -> None:
    """Steps of nine micro-batches: it does not wait for the end of one, and repeats it exactly."""
    whole = undisturbed.fork(tmp_path / "whole")
    whole.spec["training"] |= {"gradientAccumulationSteps": 9, "perDeviceTrainBatchSize": 1, "maxSteps": 6}
    whole.spec["training"]["loggingSteps"] = 1
    whole.run("train")
    run = whole.fork(tmp_path / "stopped")
    run.stop("step 2/6")
    run.run("train")
    assert run.model_digest == whole.model_digest


def test_while_evaluating(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    for part in ("model", "checkpoints"):
        (run.work / part).symlink_to(undisturbed.work / part)
    assert stop(run, "evaluate", lambda line: line.startswith("eval: ")) < SOON
    assert not (run.work / "evaluation").exists()
    run.run("evaluate")
    metrics = json.loads((run.work / "evaluation" / "metrics.json").read_text())
    assert metrics["metrics"]["tokens"] > 100
    again = run.run("evaluate")
    assert any("nothing to do" in line for line in again.lines)


def test_while_exporting(undisturbed: Run, tmp_path: Path) -> None:
    """Killed between the last checkpoint and the model: the next attempt has only the export to do."""
    run = undisturbed.fork(tmp_path)
    started = run.start("train")
    started.wait_for_line(lambda line: line.startswith("checkpoint at step 30"))
    started.kill(signal.SIGKILL)
    started.wait()
    resumed = run.run("train")
    assert not any(line.startswith("step 1/") for line in resumed.lines)
    assert run.model_digest == undisturbed.model_digest


def test_a_second_signal_changes_nothing(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec["training"]["loggingSteps"] = 1
    started = run.start("train")
    started.wait_for_line(lambda line: line.startswith("step 5/"))
    started.kill(signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):
        started.kill(signal.SIGTERM)
    assert started.wait() == 75
    run.run("train")
    assert run.model_digest == undisturbed.model_digest
