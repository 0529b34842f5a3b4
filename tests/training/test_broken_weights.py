"""A base with weights that are no numbers, and a warm-up that is longer than the training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.method_specs import method_spec
from tests.training.runs import Run
from trainyard.api.exitcodes import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_are_told_before_the_first_step_and_not_tried_again(
    undisturbed: Run, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    base = tmp_path / "broken"
    shutil.copytree(undisturbed.work / "model", base)
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name][0, 0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    run = new_run()
    run.spec = method_spec("DPO", base)
    run.run("prepare")
    run.run("train", expect=ExitCode.INVALID_CONFIG)
    record = run.final_record
    assert f"1 of 1,024 weights in {name} are not finite numbers" in record["message"]
    assert "learningRate" not in record["hint"]


def test_a_warm_up_that_is_longer_than_the_training_is_remarked(new_run: Callable[..., Run]) -> None:
    def change(spec: dict) -> None:  # type: ignore[type-arg]
        spec["training"] |= {"maxSteps": 2, "warmupSteps": 100}

    run = new_run(change)
    run.run("prepare")
    lines = run.run("train").lines
    assert any("warmupSteps 100 is more than the 2 steps" in line for line in lines)
