"""What was changed between two attempts, or between a run and the one that goes on from it, acts from the first resumed step
on, in the optimizer itself; what a checkpoint cannot go on with is refused before the training, with both values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.method_specs import method_spec
from tests.training.runs import Run, Zygote
from tests.training.test_trm import trm_spec
from trainyard.api.exitcodes import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPY = """
import json
from trainyard.trainer.methods.trainer import CommittingTrainer, Updating
def on_pre_optimizer_step(self, args, state, control, optimizer=None, **rest):
    self.now = True
    groups = [[group["lr"], group["weight_decay"]] for group in optimizer.param_groups]
    seen = {"step": state.global_step + 1, "groups": groups, "rows": rows}
    print("spy " + json.dumps(seen), flush=True)
Updating.on_pre_optimizer_step = on_pre_optimizer_step
original, rows = CommittingTrainer.training_step, []
def training_step(self, model, inputs, *arguments, **named):
    rows[:] = [len(inputs["input_ids"])]
    return original(self, model, inputs, *arguments, **named)
CommittingTrainer.training_step = training_step
"""
SPY_ON_TRM = """
import json
from trainyard.trainer.trm.fit import Fit
original = Fit.one_step
def one_step(self):
    told = original(self)
    groups = [[group["lr"], group["weight_decay"]] for group in self.optimizer.param_groups]
    print("spy " + json.dumps({"step": self.step, "groups": groups, "rows": [self.recipe.batch]}), flush=True)
    return told
Fit.one_step = one_step
"""
NUMBERS = itertools.count()
CHANGED = {"learningRate": 1e-5, "weightDecay": 0.2, "lrSchedulerType": "constant", "warmupSteps": 0, "loggingSteps": 2}


def seen_by(lines: list[str]) -> dict[int, dict[str, Any]]:
    """What the optimizer had, by step."""
    return {(seen := json.loads(line.removeprefix("spy ")))["step"]: seen for line in lines if line.startswith("spy ")}


def logged_steps(lines: list[str]) -> list[int]:
    return [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step ") and " eval " not in line]


@pytest.fixture(scope="module")
def base(undisturbed: Run) -> Path:
    return undisturbed.work / "model"


def second_run(first: Run, patch: str = "") -> Run:
    """Another run on the same volume that goes on from the first."""
    spec = json.loads(json.dumps(first.spec))
    spec["checkpoints"]["resumeFrom"] = first.name
    return Run(first.zygote, first.folder, spec, f"second-{next(NUMBERS)}", patch=patch)


def test_all_that_was_changed_while_suspended_acts_in_the_first_step_after_it(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.fork(tmp_path)
    run.spec["training"]["loggingSteps"] = 1
    run.stop("step 6/")
    stopped_at = run.final_record["checkpoint"]["step"]
    run.spec["training"] |= CHANGED | {
        "perDeviceTrainBatchSize": 2,
        "gradientAccumulationSteps": 4,
        "evalSteps": 3,
        "perDeviceEvalBatchSize": 3,
    }
    run.spec["checkpoints"] = {"everySteps": 4, "keepLast": 100}
    run.patch = SPY
    lines = run.run("train").lines
    first = seen_by(lines)[stopped_at + 1]
    assert first["groups"] == [[1e-5, 0.2], [1e-5, 0.0]], "biases and norms are never decayed"
    assert first["rows"] == [2]
    assert [step for step in logged_steps(lines) if stopped_at < step < 30] == [
        step for step in range(stopped_at + 1, 30) if step % 2 == 0
    ]
    saved = {int(line.split()[3].rstrip(":")) for line in lines if line.startswith("checkpoint at step")}
    assert saved == {step for step in range(stopped_at + 1, 31) if step % 4 == 0} | {30}
    state = json.loads((run.work / "checkpoints" / "step-00000030" / "trainer_state.json").read_text())
    evaluated = {entry["step"] for entry in state["log_history"] if "eval_loss" in entry}
    assert {step for step in evaluated if step > stopped_at} == {s for s in range(stopped_at + 1, 31) if s % 3 == 0}
    told = next(line for line in lines if line.startswith("changed since"))
    assert f"in force from step {stopped_at + 1} on" in told
    assert "spec.training.learningRate was 0.003, is now 1e-05" in told
    assert "spec.checkpoints.everySteps was 5, is now 4" in told


def test_a_schedule_that_had_ended_begins_anew_where_the_training_is_longer(undisturbed: Run, tmp_path: Path) -> None:
    """Ten steps down to zero; the eleventh of twenty has half of the rate, not the last one of the old schedule."""
    first = undisturbed.fork(tmp_path)
    first.spec["training"] |= {"maxSteps": 10, "lrSchedulerType": "linear", "warmupSteps": 0}
    first.run("train")
    second = second_run(first, SPY)
    second.spec["training"]["maxSteps"] = 20
    second.run("prepare")
    seen = seen_by(second.run("train").lines)
    assert [group[0] for group in seen[11]["groups"]] == pytest.approx([1.5e-3, 1.5e-3])
    assert [group[0] for group in seen[12]["groups"]] == pytest.approx([1.35e-3, 1.35e-3])


@pytest.mark.parametrize(("method", "adapter"), [("SFT", True), ("DPO", False), ("ORPO", True), ("PPO", False)])
def test_every_method_goes_on_with_the_settings_of_its_own_spec(
    method: str, adapter: bool, base: Path, new_run: Callable[..., Run]
) -> None:
    first = new_run()
    first.spec = method_spec("DPO" if method == "SFT" else method, base, adapter=adapter)
    if method == "SFT":
        first.spec["datasets"] = [{"name": "text", "inline": {"text": "the train stops at the station\n\n" * 40}}]
        first.spec["training"] |= {"method": "CPT"}
        del first.spec["training"]["evalSteps"]
    first.spec["training"]["maxSteps"] = 4
    first.run("prepare")
    first.run("train")
    second = second_run(first, SPY)
    second.spec["training"] |= CHANGED | {"maxSteps": 6}
    second.run("prepare")
    seen = seen_by(second.run("train").lines)
    assert sorted(seen) == [5, 6]
    assert {rate for rate, _ in seen[5]["groups"]} == {1e-5}
    assert 0.2 in {decay for _, decay in seen[5]["groups"]}
    optimizer = torch.load(second.work / "checkpoints" / "step-00000006" / "optimizer.pt", weights_only=True)
    assert 0.2 in {group["weight_decay"] for group in optimizer["param_groups"]}


def test_a_tiny_recursive_model_too(zygote: Zygote, tmp_path: Path) -> None:
    run = Run(zygote, tmp_path, trm_spec())
    run.run("prepare")
    run.stop("step 6/")
    stopped_at = run.final_record["checkpoint"]["step"]
    run.spec["training"] |= CHANGED | {"perDeviceTrainBatchSize": 8}
    run.patch = SPY_ON_TRM
    lines = run.run("train").lines
    assert seen_by(lines)[stopped_at + 1] == {"step": stopped_at + 1, "groups": [[1e-5, 0.2]], "rows": [8]}
    assert any(line.startswith("changed since") and "weightDecay was 0.0, is now 0.2" in line for line in lines)


@pytest.mark.parametrize("kind", ["language", "tiny"])
def test_fewer_steps_than_were_trained_already_end_with_what_is_there(
    kind: str, undisturbed: Run, zygote: Zygote, tmp_path: Path
) -> None:
    run = undisturbed.fork(tmp_path) if kind == "language" else Run(zygote, tmp_path, trm_spec())
    if kind == "tiny":
        run.run("prepare")
    run.spec["training"]["loggingSteps"] = 1
    run.stop("step 6/")
    stopped_at = run.final_record["checkpoint"]["step"]
    run.spec["training"]["maxSteps"] = 3
    lines = run.run("train").lines
    assert any(f"the checkpoint is at step {stopped_at}, and the spec asks for 3" in line for line in lines)
    assert not logged_steps(lines)
    record = run.final_record
    assert (record["outcome"], record["stepNumber"], record["percentage"]) == ("Succeeded", stopped_at, 100.0)
    assert json.loads((run.work / "model" / "manifest.json").read_text())["step"] == stopped_at


class TestAnotherKindOfTraining:
    @pytest.fixture(scope="class")
    def first(self, undisturbed: Run, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """Two steps with an adapter of rank 4."""
        run = Run(undisturbed.zygote, tmp_path_factory.mktemp("adapter"), method_spec("DPO", base, adapter=True))
        run.spec["training"]["maxSteps"] = 2
        run.run("prepare")
        run.run("train")
        return run

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (
                {"model": {"adapter": {"lora": {"rank": 8, "alpha": 64, "targetModules": ["q_proj"], "dropout": 0.1}}}},
                [
                    "spec.model.adapter.lora.rank was 4, the spec says 8",
                    "spec.model.adapter.lora.alpha was 32.0, the spec says 64.0",
                    'spec.model.adapter.lora.targetModules was ["all-linear"], the spec says ["q_proj"]',
                ],
            ),
            ({"model": {"adapter": None}}, ["spec.model.adapter was lora, the spec says none"]),
            ({"model": {"storageUri": "file:///another/base"}}, ["the spec says file:///another/base"]),
            (
                {"training": {"optim": "adafactor"}},
                ["spec.training.optim was adamw_torch, the spec says adafactor"],
            ),
            ({"training": {"method": "ORPO"}}, ["spec.training.method was DPO, the spec says ORPO"]),
        ],
    )
    def test_is_refused_by_name_before_anything_is_prepared(
        self, change: dict[str, Any], told: list[str], first: Run
    ) -> None:
        second = second_run(first)
        for part, fields in change.items():
            second.spec[part] |= fields
        second.spec["model"] = {name: value for name, value in second.spec["model"].items() if value is not None}
        second.spec["training"]["maxSteps"] = 4
        second.run("prepare", expect=ExitCode.INVALID_CONFIG)
        record = second.final_record
        assert record["reason"] == "InvalidConfig"
        assert "spec.checkpoints.resumeFrom) cannot be gone on from" in record["message"]
        for sentence in told:
            assert sentence in record["message"]
        assert "set back what is named" in record["hint"]
        assert not (second.work / "data").exists()

    def test_an_adapter_after_a_whole_training_is_refused(self, undisturbed: Run, base: Path) -> None:
        second = Run(undisturbed.zygote, undisturbed.folder, method_spec("DPO", base, adapter=True), "third")
        second.spec["checkpoints"]["resumeFrom"] = "tiny"
        second.run("prepare", expect=ExitCode.INVALID_CONFIG)
        assert "spec.model.adapter was none, the spec says lora" in second.final_record["message"]

    def test_the_two_spellings_of_one_optimizer_go_on_from_each_other(self, first: Run) -> None:
        second = second_run(first)
        second.spec["training"] |= {"optim": "adamw_torch_fused", "maxSteps": 3}
        second.run("prepare")
        second.run("train")
        assert second.final_record["stepNumber"] == 3
