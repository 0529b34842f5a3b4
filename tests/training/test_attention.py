"""`spec.training.attention`: what runs is what was asked for, and what cannot be had is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.training.runs import Run
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.run.training import Training
from trainyard.trainer.errors import UserError
from trainyard.trainer.machine.device import find_device
from trainyard.trainer.models import attention
from trainyard.trainer.models.attention import check_attention

pytestmark = pytest.mark.slow


def asked(attention: str, **named: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["training"].update({"attention": attention, "maxSteps": 4, **named})


@pytest.mark.parametrize(("name", "told"), [("Eager", "eager"), ("SDPA", "sdpa")])
def test_what_was_asked_for_runs(name: str, told: str, new_run: Callable[..., Run]) -> None:
    run = new_run(asked(name))
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
        if step == "train":
            assert run.final_record["effective"]["attention"] == told
    assert "_attn_implementation" not in (run.work / "model" / "config.json").read_text()


def test_both_learn_the_same(new_run: Callable[..., Run]) -> None:
    found = []
    for name in ("Eager", "SDPA"):
        run = new_run(asked(name))
        run.spec["model"]["scratch"]["config"]["attention_dropout"] = 0.0
        run.run("prepare")
        run.run("train")
        run.run("evaluate")
        found.append(json.loads((run.work / "evaluation" / "metrics.json").read_text())["metrics"]["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_the_image_has_not_is_told_in_the_first_step(new_run: Callable[..., Run]) -> None:
    run = new_run(asked("FlashAttention2", precision="BF16"))
    lines = "\n".join(run.run("prepare", expect=64).lines)
    assert "spec.training.attention FlashAttention2 needs the package flash_attn" in lines


def test_flash_attention_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    training = Training.model_validate({"attention": "FlashAttention2"})
    cpu = replace(find_device("FP32"), kind="cpu")
    check_attention(training)
    check_attention(training, replace(cpu, kind="cuda", precision="BF16"))
    for device in (replace(cpu, precision="BF16"), replace(cpu, kind="cuda")):
        with pytest.raises(UserError, match="needs a GPU that computes in BF16 or FP16"):
            check_attention(training, device)


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"attention": "FlashAttention2", "precision": "FP32"}, "computes in BF16 or FP16"),
        ({"attention": "SDPA", "method": "TRM"}, "method TRM has its own attention"),
    ],
)
def test_what_does_not_go_together(training: dict[str, Any], told: str) -> None:
    spec = {
        "model": {"storageUri": "hf://a/b"},
        "datasets": [
            {"name": "d", "format": "PromptCompletion", "inline": {"records": [{"prompt": "a", "completion": "b"}]}}
        ],
        "training": training,
    }
    head = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": {"name": "a"}}
    with pytest.raises(InvalidManifest, match=told):
        parse_run({**head, "spec": spec})
