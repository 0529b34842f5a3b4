"""Learning a teacher's probabilities: the arithmetic beside TRL's, whole runs with an exact continuation, a teacher on a server."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl.experimental.gkd import GKDTrainer

from tests.training.runs import Run
from tests.training.test_methods import kill_at_random, losses
from tests.webserver import Asked, Reply, web
from trainyard.api.manifest import parse_run
from trainyard.api.references import sources
from trainyard.api.run.training import Training
from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.errors import UserError
from trainyard.trainer.methods import distillation
from trainyard.trainer.methods.batches import collate
from trainyard.trainer.methods.distillation import IDS, LOG_PROBS, DistillationObjective, divergences, of_known
from trainyard.trainer.methods.distillation_config import DistillationConfig, distillation_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ENTRIES = 50
CASES = [
    (0.0, 1.0),
    (1.0, 1.0),
    (0.5, 1.0),
    (0.1, 1.0),
    (0.9, 1.0),
    (0.0, 2.0),
    (1.0, 0.5),
    (0.5, 0.7),
    (0.3, 1.5),
    (0.7, 3.0),
]
"""beta and temperature."""


def small(seed: int, *, width: int = 16, rows: int = ENTRIES) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval()


def objective(beta: float, temperature: float, teacher: Any) -> DistillationObjective:
    return DistillationObjective(
        DistillationConfig(beta, temperature), teacher=teacher, held_out=None, collate=collate(0), entries=ENTRIES, device="cpu",
        dtype=torch.float32,
    )  # fmt: skip


def batch(seed: int = 5) -> dict[str, Any]:
    ids = torch.randint(0, ENTRIES, (3, 9), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1, 6:] = -100
    return {"input_ids": ids, "labels": labels, "position_ids": torch.arange(9).expand(3, 9)}


def theirs(student: Any, teacher: Any, inputs: dict[str, Any], beta: float, temperature: float) -> torch.Tensor:
    """TRL's, as its trainer calls it."""
    others = {name: value for name, value in inputs.items() if name in ("input_ids", "position_ids")}
    with torch.no_grad():
        wanted = teacher(**others).logits[:, :-1, :ENTRIES]
    found: torch.Tensor = GKDTrainer.generalized_jsd_loss(
        student(**others).logits[:, :-1], wanted, labels=inputs["labels"][:, 1:], beta=beta, temperature=temperature,
        num_items_in_batch=7,
    )  # fmt: skip
    return found


@pytest.mark.parametrize(("beta", "temperature"), CASES)
def test_loss_and_gradient_are_those_of_trl(beta: float, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.trainer.methods.counted_head.TILE_BYTES", 5 * 4 * ENTRIES)  # three tiles
    teacher, inputs = small(2, width=32, rows=ENTRIES + 6), batch()  # whose embedding has rows that stand for nothing
    ours, other = small(1), small(1)
    loss, metrics = objective(beta, temperature, teacher).loss(ours, inputs, 7)
    wanted = theirs(other, teacher, inputs, beta, temperature)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5, abs=1e-5)
    loss.backward()
    wanted.backward()
    for one, two in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-5)
    assert 0 <= float(metrics[distillation.AGREEMENT]) <= 1
    assert objective(beta, temperature, teacher).batches(ours, [inputs, inputs], step=0)[1] == 24, (
        "five, two and five, twice"
    )


def test_divergences_worked_out_by_hand() -> None:
    one, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    forward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergences(one, other, 0).item() == pytest.approx(forward, abs=1e-6)
    assert divergences(one, other, 1).item() == pytest.approx(reverse, abs=1e-6)
    assert divergences(one, one, 0.5).item() == pytest.approx(0, abs=1e-7)
    mixed = [0.375, 0.625]
    halves = [sum(p * math.log(p / m) for p, m in zip(ps, mixed, strict=True)) for ps in ([0.5, 0.5], [0.25, 0.75])]
    assert divergences(one, other, 0.5).item() == pytest.approx(sum(halves) / 2, abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_with_every_token_known_it_is_the_whole_divergence_and_with_fewer_less(beta: float) -> None:
    own, teacher = (torch.randn(6, 12, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    log_probs = torch.log_softmax(teacher, -1)
    whole = divergences(torch.log_softmax(own, -1), log_probs, beta)
    found = []
    for top in (3, 8, 12):
        values, ids = log_probs.topk(top)
        found.append(divergences(*of_known(own, ids, values), beta))
    assert torch.allclose(found[2], whole, atol=1e-4)
    assert (found[0] <= found[1] + 1e-6).all()
    assert (found[1] <= whole + 1e-6).all()
    padded = (torch.cat([ids, torch.full((6, 2), -1)], 1), torch.cat([values, torch.zeros(6, 2)], 1))
    assert torch.allclose(divergences(*of_known(own, *padded), beta), found[2], atol=1e-5), (
        "fewer were told than asked for"
    )


def test_what_a_server_tells_stands_at_its_token() -> None:
    """All entries told: the loss is that of the same teacher beside the model."""
    teacher, student, inputs = small(2), small(1), batch()
    whole, _ = objective(0.5, 1.0, teacher).loss(student, inputs, None)
    with torch.no_grad():
        log_probs = torch.log_softmax(teacher(inputs["input_ids"], position_ids=inputs["position_ids"]).logits, -1)
    values, ids = log_probs.topk(ENTRIES)
    told = {LOG_PROBS: values.roll(1, dims=1), IDS: ids.roll(1, dims=1)}
    known, _ = objective(0.5, 1.0, None).loss(student, inputs | told, None)
    assert float(known) == pytest.approx(float(whole), rel=1e-3)


# ---- whole runs


@pytest.fixture(scope="module")
def base(undisturbed: Run) -> Path:
    return undisturbed.work / "model"


@pytest.fixture(scope="module")
def teacher(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer, other weights."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(base, folder)
    chance = torch.Generator().manual_seed(7)
    weights = load_file(base / "model.safetensors")
    noisy = {
        name: value + 0.1 * torch.randn(value.shape, generator=chance).to(value) for name, value in weights.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def spec_of(
    base: Path, teacher: dict[str, Any], *, adapter: bool = False, method: str = "Distillation"
) -> dict[str, Any]:
    records = [
        {"prompt": f"paragraph {n}: the train", "completion": f" stops at station {n % 7} and waits"} for n in range(40)
    ]
    taught = {"teacher": teacher, "extraArgs": {"beta": 0.5}} if method == "Distillation" else {}
    return {
        "model": {"storageUri": f"file://{base}", **({"adapter": {"lora": {"rank": 4}}} if adapter else {})},
        "datasets": [
            {"name": "records", "format": "PromptCompletion", "inline": {"records": records}, "split": {"eval": 0.2}}
        ],
        "training": {
            "method": method,
            "maxSteps": 12,
            "maxLength": 64,
            "perDeviceTrainBatchSize": 1,
            "gradientAccumulationSteps": 2,
            "learningRate": 1e-3,
            "loggingSteps": 1,
            "evalSteps": 5,
            "precision": "FP32",
            **taught,
        },
        "checkpoints": {"everySteps": 5},
    }


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_stopped_and_killed_it_ends_the_same(
    adapter: bool, base: Path, teacher: Path, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    whole = new_run()
    whole.spec = spec_of(base, {"storageUri": f"file://{teacher}"}, adapter=adapter)
    whole.run("prepare")
    run = whole.fork(tmp_path / "killed")
    whole.run("train")
    run.stop("step 2/")
    kill_at_random(run, 2, seed=1)
    assert run.model_digest == whole.model_digest
    assert losses(run) == losses(whole)
    whole.run("evaluate")


def divergence(run: Run) -> list[float]:
    return [entry["eval_loss"] for entry in losses(run).values() if "eval_loss" in entry]


def test_it_comes_nearer_to_its_teacher_and_answers_alone_do_not(
    base: Path, teacher: Path, new_run: Callable[..., Run]
) -> None:
    def trained(rate: float) -> list[float]:
        run = new_run()
        run.spec = spec_of(base, {"storageUri": f"file://{teacher}"})
        run.spec["training"] |= {"learningRate": rate, "maxSteps": 30, "evalSteps": 1}
        run.run("prepare")
        run.run("train")
        return divergence(run)

    learned, frozen = trained(3e-3), trained(1e-12)
    assert learned[-1] < 0.5 * learned[0]
    assert frozen[-1] == pytest.approx(frozen[0], rel=1e-3)


def test_another_tokenizer_is_refused_in_prepare(base: Path, new_run: Callable[..., Run], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    train_tokenizer(iter(["quite other words in this one, and again other words"] * 30), 300, other)
    run = new_run()
    run.spec = spec_of(base, {"storageUri": f"file://{other}"})
    for step in ("prepare", "validate"):
        lines = "\n".join(run.run(step, expect=64).lines)
        assert "spec.training.teacher.storageUri" in lines
        assert "has another tokenizer than the model" in lines
        assert "SFT" in lines


class Completions:
    """As much of an OpenAI-compatible server as is asked for: echo and logprobs of given token ids."""

    def __init__(self, folder: Path, *, by_id: bool = True) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._by_id = by_id

    def name(self, token: int) -> str:
        return f"token_id:{token}" if self._by_id else self.tokenizer.decode([token])

    def __call__(self, asked: Asked) -> Reply:
        body = json.loads(asked.body)
        assert asked.path == "/v1/completions"
        with torch.no_grad():
            log_probs = torch.log_softmax(self.model(torch.tensor([body["prompt"]])).logits[0], -1)
        tops: list[Any] = [None]
        for row in log_probs[:-1]:
            values, ids = row.topk(body["logprobs"])
            tops.append({self.name(int(i)): float(v) for i, v in zip(ids, values, strict=True)})
        tokens = [self.name(token) for token in body["prompt"]]
        return Reply({"choices": [{"logprobs": {"tokens": [*tokens, "x"], "top_logprobs": [*tops, {"x": -1.0}]}}]})


def told_in(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    return {f"{f.parent.name}/{f.stem}": np.load(f) for f in sorted((run.work / "teacher").rglob("*.npy"))}


@pytest.mark.parametrize("by_id", [True, False])
def test_a_server_is_asked_in_prepare_alone(
    by_id: bool, base: Path, teacher: Path, new_run: Callable[..., Run]
) -> None:
    """Killed in between it asks for the rest; the training goes on when the server is gone, and is exact when it is stopped."""
    whole = new_run()
    with web(Completions(teacher, by_id=by_id)) as server:
        http = {"url": f"{server.url}/v1", "model": "large", "topLogprobs": 30, "secretRef": {"name": "key"}}
        whole.spec = spec_of(base, {"http": http})
        (whole.folder / "secrets" / "key").mkdir(parents=True)
        (whole.folder / "secrets" / "key" / "token").write_text("open-sesame")
        whole.run("prepare")
        assert len(server.asked) == 40
        assert {one.authorization for one in server.asked} == {"Bearer open-sesame"}
        before = told_in(whole)
        done = next((whole.work / "teacher").rglob("train/done.npy"))
        flags = np.load(done)
        flags[:3] = False
        np.save(done, flags)
        whole.run("prepare")
        assert len(server.asked) == 43, "what is there is not asked for again"
        assert {n: v.tobytes() for n, v in told_in(whole).items()} == {n: v.tobytes() for n, v in before.items()}
    shutil.rmtree(whole.folder / "secrets")
    stopped = whole.fork(whole.folder / "stopped")
    shutil.copytree(whole.work / "teacher", stopped.work / "teacher")
    whole.run("train")
    stopped.stop("step 6/")
    stopped.run("train")
    assert stopped.model_digest == whole.model_digest
    assert divergence(whole)[-1] < divergence(whole)[0]
    shutil.rmtree(stopped.work / "teacher")
    shutil.rmtree(stopped.work / "model")
    assert "run the prepare step again" in "\n".join(stopped.run("train", expect=74).lines)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"choices": [{"text": "hello"}]}, "has no logprobs with tokens and top_logprobs"),
        ({"choices": [{"logprobs": {"tokens": ["a"], "top_logprobs": [None]}}]}, "tells less than all of them (echo)"),
        ({"choices": [{"logprobs": {"tokens": ["token_id:3"] * 99, "top_logprobs": [{"token_id:3": 0.0}] * 99}}]}, "another tokenizer"),
    ],
)  # fmt: skip
def test_a_server_of_another_kind_is_told(answer: Any, told: str, base: Path, new_run: Callable[..., Run]) -> None:
    run = new_run()
    with web(lambda asked: Reply(answer)) as server:
        run.spec = spec_of(base, {"http": {"url": f"{server.url}/v1", "model": "large"}})
        step = run.start("prepare")
        assert step.wait() in (64, 65)
    assert told in "\n".join(step.lines)
    assert "spec.training.teacher.http" in "\n".join(step.lines)


def test_a_temperature_needs_the_whole_distribution() -> None:
    teacher = {"http": {"url": "http://127.0.0.1:9/v1", "model": "large"}}
    assert Training.model_validate({"method": "Distillation", "teacher": teacher, "extraArgs": {"temperature": 1.0}})
    with pytest.raises(ValueError, match="a server tells the likeliest alone"):
        Training.model_validate({"method": "Distillation", "teacher": teacher, "extraArgs": {"temperature": 2.0}})


def test_references_of_a_teacher() -> None:
    """A model's volume is for prepare and train, a server's Secret for prepare alone."""

    def steps(teacher: dict[str, Any]) -> dict[str, set[str]]:
        spec = spec_of(Path("/base"), teacher)
        head = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": {"name": "a"}}
        return {one.field: set(one.steps) for one in sources(parse_run({**head, "spec": spec}).spec)}

    assert steps({"storageUri": "pvc://large/model"}) == {
        "spec.training.teacher.storageUri": {"validate", "prepare", "train"}
    }
    http = {"url": "http://large/v1", "model": "large", "secretRef": {"name": "key"}}
    assert steps({"http": http}) == {"spec.training.teacher.http.secretRef.name": {"prepare"}}


@pytest.mark.parametrize(
    ("extra", "told"), [({"beta": 1.5}, "beta 1.5 is out of range"), ({"temperature": 0.0}, "is not above 0")]
)
def test_a_wrong_argument_is_told(extra: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        distillation_settings(extra)
