"""Trainings that end when evaluations get no better, at the same step however often they were killed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.method_specs import method_spec
from tests.training.runs import Run, tiny_spec
from tests.training.test_trm import trm_spec
from trainyard.api.run.training import EarlyStopping
from trainyard.trainer.frame.early_stop import Seen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def noticed(values: list[float], metric: str = "loss", **rule: Any) -> list[int]:
    """Where a training ends that measures these values one after the other; empty if it does not."""
    seen = Seen()
    return [n for n, value in enumerate(values) if seen.notice(value, n, EarlyStopping(**rule), metric)][:1]


def test_when_it_ends() -> None:
    assert noticed([5, 4, 4.5, 4.2, 3.9, 3.95, 4], patience=3) == []
    assert noticed([5, 4, 4.5, 4.2, 4.0, 3.9], patience=3) == [4], "as good as the best is not better"
    assert noticed([5, 4, 3.95, 3.91], patience=2, minimum_delta=0.1) == [3]
    assert noticed([0.1, 0.2, 0.2, 0.1], "rewards/accuracies", patience=2) == [3]
    assert noticed([0.1, 0.2, 0.3], "rewards/accuracies", patience=1) == []
    assert noticed([math.nan, math.nan], patience=2) == [1]
    assert noticed([1, math.nan, 0.5, 0.4], patience=2) == []


@pytest.fixture(scope="module")
def base(undisturbed: Run) -> Path:
    return undisturbed.work / "model"


def spec_of(method: str, base: Path) -> dict[str, Any]:
    """With a delta that no evaluation reaches, so that the third one ends it."""
    if method == "TRM":
        spec = trm_spec()
    elif method == "Pretrain":
        spec = tiny_spec()
    else:
        spec = method_spec(method, base)
        spec["training"] |= {"maxSteps": 30}
    spec["training"] |= {"evalSteps": 4, "earlyStopping": {"patience": 2, "minimumDelta": 1000}}
    return spec


@pytest.mark.parametrize("method", ["Pretrain", "DPO", "KTO", "PPO", "TRM"])
def test_it_ends_early_and_so_does_a_killed_one(
    method: str, base: Path, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    whole = new_run()
    whole.spec = spec_of(method, base)
    whole.run("prepare")
    run = whole.fork(tmp_path / "killed")
    step = whole.run("train")
    assert any("stopped early at step 12" in line for line in step.lines), "\n".join(step.lines)
    assert whole.checkpoints[-1] == "step-00000012"
    again = run.start("train")
    again.wait_for_line(lambda line: "step 8/" in line)
    again.kill()
    again.wait()
    again = run.start("train")
    again.wait_for_line(lambda line: "stopped early at step 12" in line)
    again.kill()
    again.wait()
    last = run.run("train")
    assert run.model_digest == whole.model_digest
    if any("going on from step 12" in line for line in last.lines):
        assert not any("step 13/" in line for line in last.lines)
    assert json.loads((whole.work / "model" / "manifest.json").read_text())["step"] == 12


def test_a_patient_one_goes_to_the_end(new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.spec["training"]["earlyStopping"] = {"patience": 4}
    run.run("prepare")
    run.run("train")
    assert run.checkpoints[-1] == "step-00000030"


def test_without_held_out_records_it_is_told(new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.spec["training"]["earlyStopping"] = {}
    del run.spec["datasets"][0]["split"]
    step = run.run("prepare", expect=65)
    assert "earlyStopping looks at held-out records" in "\n".join(step.lines)
