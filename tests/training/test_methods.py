"""DPO, ORPO, KTO and PPO as whole runs: what has to move, what must not, and an exact continuation."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.training.method_specs import method_spec, preferences
from tests.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
METHODS = ("DPO", "ORPO", "RewardModel", "KTO", "PPO")

STOP_WHILE_GENERATING = """
import os, signal
from trainyard.trainer.methods import rollouts
from trainyard.trainer.signals import STOP
original, calls = rollouts._sample_batch, []
def sample_batch(*arguments):
    calls.append(1)
    if len(calls) == 11:  # in the third iteration: four calls for the responses of each, one for the evaluation at step 5
        os.kill(os.getpid(), signal.SIGTERM)
        while not STOP.requested:
            os.sched_yield()
    return original(*arguments)
rollouts._sample_batch = sample_batch
"""


@pytest.fixture(scope="module")
def base(undisturbed: Run) -> Path:
    return undisturbed.work / "model"


def whole_run(new_run: Callable[..., Run], method: str, base: Path, **named: Any) -> Run:
    run = new_run()
    run.spec = method_spec(method, base, **named)
    run.run("prepare")
    return run


def measured(run: Run) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run.work / "evaluation" / "metrics.json").read_text())["metrics"]
    return metrics


def step_of(line: str) -> int:
    return int(line.split()[1].split("/")[0])


def kill_at_random(run: Run, kills: int, seed: int, *, furthest: int = 3) -> list[int]:
    """SIGKILL a training `kills` times, a random number of steps after it has gone on; then let it end. The steps at which
    it was killed."""
    chance = random.Random(seed)
    killed = []
    for number in range(kills):
        step = run.start("train")
        reached = 0
        for _ in range(chance.randint(1, furthest)):
            line = step.wait_for_line(lambda line: line.startswith(("step ", "training is complete", "model: 0")))
            if not line.startswith("step "):
                break
            reached = step_of(line)
        if chance.random() < 0.3 and 0 < reached < 11:
            step.wait_for_line(lambda line: line.startswith("checkpoint at"))
        step.kill()
        assert step.wait() in (-signal.SIGKILL, 0), f"kill {number}"
        killed.append(reached)
    run.run("train")
    return killed


@pytest.mark.parametrize("method", METHODS)
def test_killed_twice_and_stopped_once(method: str, base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    whole = whole_run(new_run, method, base)
    run = whole.fork(tmp_path / "killed")
    whole.run("train")
    run.stop("step 2/")
    kill_at_random(run, 2, seed=METHODS.index(method))
    assert run.model_digest == whole.model_digest
    assert losses(run) == losses(whole)


@pytest.mark.load
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_killed_ten_times(method: str, adapter: bool, base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    whole = whole_run(new_run, method, base, adapter=adapter)
    whole.spec["training"]["maxSteps"] = 40
    run = whole.fork(tmp_path / "killed")
    whole.run("train")
    killed = kill_at_random(run, 10, seed=2 * METHODS.index(method) + adapter, furthest=9)
    print(f"{method}: killed after steps {killed}")
    assert len(set(killed)) > 5
    assert run.model_digest == whole.model_digest


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_is_resumed_exactly(method: str, base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    whole = whole_run(new_run, method, base, adapter=True)
    run = whole.fork(tmp_path / "stopped")
    whole.run("train")
    run.stop("step 6/")
    run.run("train")
    assert run.model_digest == whole.model_digest
    weights = load_file(run.work / "model" / "model.safetensors")
    more = {"score.weight"} if method == "RewardModel" else set()
    less = {"lm_head.weight"} if method == "RewardModel" else set()
    assert set(weights) == set(load_file(base / "model.safetensors")) - less | more, "nothing of value head or adapter"


def losses(run: Run) -> dict[int, Any]:
    """Everything that was logged, by step. (The epoch is counted in micro-batches, so it depends on their size.)"""
    file = sorted((run.work / "checkpoints").iterdir())[-1] / "trainer_state.json"
    history = json.loads(file.read_text())["log_history"]
    return {entry["step"]: {k: v for k, v in entry.items() if k != "epoch"} for entry in history}


def test_sigterm_is_answered_while_responses_are_generated(
    base: Path, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    whole = whole_run(new_run, "PPO", base)
    run = whole.fork(tmp_path / "stopped")
    whole.run("train")
    run.patch = STOP_WHILE_GENERATING
    assert run.start("train").wait() == 75
    assert run.final_record["checkpoint"]["step"] == 8, "the last whole step before those responses"
    run.patch = ""
    run.run("train")
    assert run.model_digest == whole.model_digest


def test_metrics_of_a_resumed_logging_interval(base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    """Logged every 4 steps, stopped at 6: margins and rewards of the next line are those of the whole interval."""
    whole = whole_run(new_run, "DPO", base)
    whole.spec["training"]["loggingSteps"] = 4
    run = whole.fork(tmp_path / "stopped")
    whole.run("train")
    run.stop("checkpoint at step 5")
    run.run("train")
    assert losses(run) == losses(whole)


@pytest.mark.parametrize("method", ["DPO", "ORPO", "RewardModel", "KTO"])
def test_preferences_are_learned_and_noise_is_not(method: str, base: Path, new_run: Callable[..., Run]) -> None:
    """Held-out pairs: margin and accuracy grow; not where the labels are random, and not without a learning rate."""

    def held_out(*, shuffled: bool = False, rate: float = 1e-3, steps: int = 24) -> dict[str, float]:
        run = new_run()
        run.spec = method_spec(method, base)
        run.spec["datasets"][0]["format"] = "Preference"  # for KTO, a good and a bad answer each
        run.spec["datasets"][0]["inline"]["records"] = preferences(120, shuffled=shuffled)
        run.spec["datasets"][0]["split"] = {"eval": 0.3}
        run.spec["training"] |= {"maxSteps": steps, "learningRate": rate, "loggingSteps": 10}
        del run.spec["training"]["evalSteps"]
        for step in ("prepare", "train", "evaluate"):
            run.run(step)
        return measured(run)

    trained, frozen, noise = held_out(), held_out(rate=1e-12, steps=2), held_out(shuffled=True)
    margin = "log_odds_chosen" if method == "ORPO" else "rewards/margins"
    if method == "DPO":
        assert frozen[margin] == pytest.approx(0, abs=1e-4), "relative to itself nothing is preferred"
        assert frozen["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert trained[margin] > frozen[margin] + 0.5
    if method == "KTO":
        assert frozen["loss"] == pytest.approx(0.5, abs=1e-4)
        assert frozen["kl"] == pytest.approx(0, abs=1e-3)
        assert trained["rewards/chosen"] > 0 > trained["rewards/rejected"]
    else:
        assert trained["rewards/accuracies"] > 0.95
        assert 0.25 < noise["rewards/accuracies"] < 0.75
    assert trained["loss"] < frozen["loss"]
    assert noise[margin] - frozen[margin] < 0.3 * (trained[margin] - frozen[margin])


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_ppo_takes_a_reward_model_that_was_trained_here(adapter: bool, base: Path, new_run: Callable[..., Run]) -> None:
    """The same number for the same text, and a training that is rewarded by it."""
    from transformers import AutoModelForSequenceClassification

    made = whole_run(new_run, "RewardModel", base, adapter=adapter)
    made.spec["training"] |= {"maxSteps": 20, "learningRate": 1e-3}
    made.run("train")
    made.run("evaluate")
    model = made.work / "model"
    config = json.loads((model / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    scorer_model = AutoModelForSequenceClassification.from_pretrained(model)
    assert scorer_model.config.num_labels == 1

    def score(text: str) -> float:
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
        scorer_model.config.pad_token_id = None
        with torch.no_grad():
            return float(scorer_model(input_ids=ids).logits[0, 0])

    gaps = [score(pair["prompt"] + pair["chosen"]) - score(pair["prompt"] + pair["rejected"]) for pair in preferences()]
    assert sum(gap > 0 for gap in gaps) > 44, "by transformers' own reading, too"
    assert measured(made)["rewards/accuracies"] > 0.9

    run = new_run()
    run.spec = method_spec("PPO", base)
    run.spec["training"]["rewards"] = [{"model": {"storageUri": f"file://{model}"}}]
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    assert measured(run)["rewards/model"] != 0


def test_ppo_raises_the_reward_and_stays_near_the_reference(base: Path, new_run: Callable[..., Run]) -> None:
    def held_out(rate: float, *, steps: int = 64, **extra: Any) -> dict[str, float]:
        run = new_run()
        run.spec = method_spec("PPO", base)
        run.spec["training"] |= {
            "maxSteps": steps,
            "perDeviceTrainBatchSize": 32,
            "perDeviceEvalBatchSize": 64,
            "gradientAccumulationSteps": 1,
            "learningRate": rate,
            "loggingSteps": 20,
            "rewards": [{"contains": {"text": "station"}}],
        }
        del run.spec["training"]["evalSteps"]
        run.spec["training"]["extraArgs"] |= extra
        run.spec["datasets"][0]["split"] = {"eval": 0.5}
        run.run("prepare")
        run.run("train")
        run.run("evaluate")
        return measured(run)

    trained, frozen = held_out(3e-3), held_out(1e-12, steps=4)
    dear = held_out(3e-3, kl_coef=5.0, kl_target=None)
    assert frozen["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert trained["objective/scores"] > frozen["objective/scores"] + 0.3
    assert 0 < trained["objective/kl"] < 10
    assert dear["objective/kl"] < trained["objective/kl"] / 2, "a high price keeps it near"


@pytest.mark.parametrize("method", ["DPO", "ORPO", "RewardModel", "KTO"])
def test_accumulation_makes_no_difference(method: str, base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    """4 micro-batches of one pair are one of four: the same loss, gradient and margin at every step, up to rounding."""
    still = shutil.copytree(base, tmp_path / "without-dropout")
    config = json.loads((still / "config.json").read_text())
    (still / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.0}))
    one = whole_run(new_run, method, still)
    one.spec["training"] |= {"learningRate": 1e-4, "gradientAccumulationSteps": 1, "perDeviceTrainBatchSize": 4}
    four = one.fork(tmp_path / "four")
    four.spec["training"] |= {"gradientAccumulationSteps": 4, "perDeviceTrainBatchSize": 1}
    one.run("train")
    four.run("train")
    compared = ("loss", "grad_norm", "kl", "eval_loss") if method == "KTO" else None  # there are kinds that a row lacks
    for step, entry in losses(one).items():
        other = losses(four)[step]
        wanted = {name: value for name, value in entry.items() if compared is None or name in compared}
        assert {name: other[name] for name in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-5), step


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"extraArgs": {"bta": 0.2}}, "did you mean beta"),
        ({"extraArgs": {"beta": "0.2"}}, "wrong type"),
        ({"extraArgs": {"beta": 0.0}}, "not above 0"),
        ({"extraArgs": {"loss_type": "sigmoyd"}}, "use sigmoid"),
        ({"extraArgs": {"sync_ref_model": True}}, "would have no effect"),
        ({"extraArgs": {"max_length": 3}}, "spec.training.maxLength"),
    ],
)
def test_a_wrong_argument_is_told(change: dict[str, Any], told: str, base: Path, new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.spec = method_spec("DPO", base)
    run.spec["training"] |= change
    step = run.run("validate", expect=64)
    assert told in "\n".join(step.lines), "\n".join(step.lines)


def test_a_record_without_an_answer_is_told_with_its_line(base: Path, new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.spec = method_spec("PPO", base)
    run.spec["training"]["rewards"] = [{"exactMatch": {}}]
    run.spec["datasets"][0]["inline"]["records"][0]["answer"] = 42
    step = run.run("prepare", expect=65)
    assert "dataset records:2: field answer: is missing" in "\n".join(step.lines)
