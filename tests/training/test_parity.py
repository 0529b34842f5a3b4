"""The arithmetic: packed is unpacked, accumulated is not accumulated, merged is unmerged, and all of it is what a plain
loop over torch computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.training.runs import Run
from trainyard.trainer.data.store import IGNORED, Sequences
from trainyard.trainer.data.tokenizer import load_tokenizer
from trainyard.trainer.evaluation.tokens import score_tokens
from trainyard.trainer.methods import counted_head, loss
from trainyard.trainer.methods.batches import TOKEN_COUNT, EpochOrder, collate, keeps_examples_apart
from trainyard.trainer.models.output_head import add_output_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen3": {"head_dim": 8, "num_key_value_heads": 4},
    "gemma3_text": {"head_dim": 8, "num_key_value_heads": 1, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gpt2": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
    "smollm3": {"num_key_value_heads": 2},
}
CAPPED = {"final_logit_softcapping": 5.0}
"""What Gemma does to its logits: the head alone does not make them."""


def tiny_model(architecture: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({} if architecture == "gpt2" else {"intermediate_size": 64}),
        **ARCHITECTURES[architecture],
        **more,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def sequences(undisturbed: Run) -> Sequences:
    return Sequences.open(undisturbed.work / "data" / "train", vocab_size=400)


def loss_of(model: Any, row: dict[str, Any]) -> tuple[float, int]:
    """Sum of the loss by transformers' own forward pass, and the tokens that counted."""
    ids = torch.from_numpy(row["input_ids"])[None]
    labels = torch.from_numpy(row["labels"])
    logits = model(input_ids=ids, position_ids=torch.from_numpy(row["position_ids"])[None], use_cache=False).logits[0]
    wanted = labels[1:] != IGNORED
    total = torch.nn.functional.cross_entropy(logits[:-1][wanted], labels[1:][wanted], reduction="sum")
    return float(total), int(wanted.sum())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_is_unpacked_example_by_example(architecture: str, sequences: Sequences) -> None:
    model = tiny_model(architecture)
    alone = sequences.unpacked()
    # Unpacked example n is the n-th entry of `items`, so the examples of sequence s are the ones between its offsets.
    with torch.no_grad():
        for index in range(6):
            start, end = int(sequences.offsets[index]), int(sequences.offsets[index + 1])
            packed, packed_tokens = loss_of(model, sequences[index])
            singles = [loss_of(model, alone[number]) for number in range(start, end)]
            assert end - start > 1, "this sequence holds several examples"
            assert packed_tokens == sum(tokens for _, tokens in singles)
            assert packed == pytest.approx(sum(single for single, _ in singles), rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_check_before_training_agrees(architecture: str) -> None:
    assert keeps_examples_apart(tiny_model(architecture), vocab_size=400, device="cpu")


def test_the_check_finds_a_model_that_mixes_examples() -> None:
    """A recurrent architecture carries its state from one example into the next."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mamba", vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8, use_mambapy=False
    )
    model = AutoModelForCausalLM.from_config(config)
    forward = model.forward
    model.forward = lambda *, position_ids=None, **named: forward(**named)  # type: ignore[method-assign]
    assert not keeps_examples_apart(model, vocab_size=400, device="cpu")


def test_padding_changes_nothing(sequences: Sequences) -> None:
    model = tiny_model("llama")
    rows = [sequences.unpacked()[i] for i in (0, len(sequences.unpacked()) - 1, 3)]
    batch = collate(0)(rows)
    assert batch.pop(TOKEN_COUNT) == sum(len(row["input_ids"]) for row in rows)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for number, row in enumerate(rows):
            alone = model(input_ids=torch.from_numpy(row["input_ids"])[None], use_cache=False).logits[0]
            assert torch.allclose(logits[number, : len(alone)], alone, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("small", [0, loss.SMALL_LOGITS])
@pytest.mark.parametrize(("architecture", "more"), [("llama", {}), ("gemma3_text", CAPPED)])
def test_the_measured_loss_is_the_mean_over_tokens_whatever_the_batch(
    sequences: Sequences,
    architecture: str,
    more: dict[str, float],
    batch_size: int,
    small: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "SMALL_LOGITS", small)
    monkeypatch.setattr(counted_head, "TILE_BYTES", max(small, 4 * 400 * 5))
    model = tiny_model(architecture, **more)
    with torch.no_grad():
        parts = [loss_of(model, sequences[i]) for i in range(len(sequences))]
    expected = sum(part for part, _ in parts) / sum(tokens for _, tokens in parts)
    add_output_head(model)
    scores = score_tokens(
        model, sequences, batch_size=batch_size, padding_id=0, device="cpu", dtype=torch.float32, likeliest=True
    )
    assert scores.tokens.sum() == sum(tokens for _, tokens in parts)
    assert scores.loss.sum() / scores.tokens.sum() == pytest.approx(expected, rel=1e-5)
    alone = sequences.unpacked()
    for number, item in enumerate(alone.items):
        row = alone[number]
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(row["input_ids"])[None], use_cache=False).logits[0]
        wanted = row["labels"][1:]
        hits = (logits[:-1].argmax(-1).numpy() == wanted) & (wanted != IGNORED)
        assert scores.right is not None
        assert scores.right[item] == hits.sum()
        assert scores.tokens[item] == (wanted != IGNORED).sum()


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_both_ways_to_the_loss_are_equal(architecture: str, sequences: Sequences) -> None:
    """Through whole logits and through TRL's tiles: the same loss and the same gradients."""
    model = tiny_model(architecture)
    add_output_head(model)
    batch = collate(0)([sequences[i] for i in range(4)])
    del batch[TOKEN_COUNT]
    whole = loss.sum_of_losses(model, batch)
    whole.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    tiled = -model(**batch, fused_lm_head=True).log_probs.sum()
    tiled.backward()
    assert whole.item() == pytest.approx(tiled.item(), rel=1e-5)
    for one, other in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(one, other.grad, atol=1e-3, rtol=1e-3)


def logged(run: Run) -> dict[int, float]:
    newest = max((run.work / "checkpoints").iterdir())
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def plain_loop(run: Run, steps: int, rate: float) -> list[float]:
    """The same training in twenty lines of torch: same first weights, same order, AdamW, constant rate, mean over tokens."""
    training = run.spec["training"]
    data = Sequences.open(run.work / "data" / "train", vocab_size=400)
    model = AutoModelForCausalLM.from_pretrained(run.folder / "start", attention_dropout=0.0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, eps=1e-8)
    order = EpochOrder(len(data), 42)
    per_step = training["perDeviceTrainBatchSize"] * training["gradientAccumulationSteps"]
    losses: list[float] = []
    epoch = 0
    while len(losses) < steps:
        order.set_epoch(epoch)
        indices = list(order)
        for start in range(0, len(indices), per_step):
            rows = [data[i] for i in indices[start : start + per_step]]
            batch = collate(0)(rows)
            inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
            logits = model(**inputs, use_cache=False).logits[:, :-1]  # with a cache, examples would see each other
            labels = batch["labels"][:, 1:]
            mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
            mean.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(mean.detach()))
            if len(losses) == steps:
                break
        epoch += 1
    return losses


@pytest.fixture(scope="module")
def started_from_weights(undisturbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """CPT from known weights without dropout, logged at every step."""
    run = undisturbed.fork(tmp_path_factory.mktemp("plain"))
    start = run.folder / "start"
    model = AutoModelForCausalLM.from_pretrained(undisturbed.work / "model", attention_dropout=0.0)
    torch.manual_seed(1)
    for parameter in model.parameters():  # away from the minimum it has reached
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(start)
    load_tokenizer(undisturbed.work / "data" / "tokenizer").save_pretrained(start)
    run.spec["model"] = {"storageUri": f"file://{start}"}
    run.spec["training"] |= {
        "method": "CPT",
        "maxSteps": 12,
        "learningRate": 1e-3,
        "lrSchedulerType": "constant",
        "warmupSteps": 0,
        "loggingSteps": 1,
    }
    run.run("prepare")
    run.run("train")
    return run


def test_the_loss_curve_is_that_of_a_plain_loop(started_from_weights: Run) -> None:
    ours = logged(started_from_weights)
    plain = plain_loop(started_from_weights, steps=12, rate=1e-3)
    assert [ours[step + 1] for step in range(12)] == pytest.approx(plain, rel=1e-4)
    assert plain[-1] < plain[0] - 0.1, "it learns"


def test_accumulating_changes_nothing(started_from_weights: Run, tmp_path: Path) -> None:
    """8 x 1 and 1 x 8 instead of 4 x 2: the same sum over the same tokens."""
    expected = logged(started_from_weights)
    for batch, accumulate in ((8, 1), (1, 8)):
        run = started_from_weights.fork(tmp_path / f"{batch}x{accumulate}")
        run.spec["training"] |= {"perDeviceTrainBatchSize": batch, "gradientAccumulationSteps": accumulate}
        run.run("train")
        assert logged(run) == pytest.approx(expected, rel=1e-4)


def test_training_without_packing_sees_every_example_once_an_epoch(new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["training"] |= {"packing": False, "maxSteps": 3, "loggingSteps": 1}

    run = new_run(change)
    run.run("prepare")
    manifest = json.loads((run.work / "data" / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    assert train["sequences"] == train["examples"] == train["records"]
    run.run("train")


def test_a_merged_adapter_answers_like_the_unmerged_one(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    from peft import PeftModel

    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {
            "storageUri": f"file://{undisturbed.work / 'model'}",
            "adapter": {"lora": {"rank": 8, "alpha": 32}},
        }
        spec["training"] |= {"method": "SFT", "maxSteps": 8, "learningRate": 1e-2}

    run = new_run(change)
    run.run("prepare")
    run.run("train")
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(undisturbed.work / "model").eval()
        before = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(run.work / "adapter")).eval()(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(run.work / "model").eval()(input_ids=ids).logits
    assert torch.allclose(adapted, merged, atol=1e-4)
    assert not torch.allclose(before, merged, atol=1e-1), "it has learned something"
    assert run.final_record["effective"]["precision"] == "FP32"


def test_an_adapter_that_is_not_merged_is_evaluated_on_its_base(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {
            "storageUri": f"file://{undisturbed.work / 'model'}",
            "adapter": {"lora": {"rank": 4, "targetModules": ["q_proj", "v_proj"]}, "merge": False},
        }
        spec["training"] |= {"method": "SFT", "maxSteps": 4}

    run = new_run(change)
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    assert not (run.work / "model").exists()
    assert (run.work / "adapter" / "tokenizer.json").exists()
    assert run.final_record["evaluation"]["metrics"]["perplexity"] > 1


def test_only_answers_count(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    """The labels that training sees are the completion's ids and nothing else."""
    records = [{"prompt": f"question {n}:", "completion": f" answer {n}"} for n in range(40)]

    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {"storageUri": f"file://{undisturbed.work / 'model'}"}
        spec["datasets"] = [{"name": "qa", "inline": {"records": records}, "format": "PromptCompletion"}]
        spec["training"] |= {"method": "SFT", "maxSteps": 4}

    run = new_run(change)
    run.run("prepare")
    tokenizer = load_tokenizer(run.work / "data" / "tokenizer")
    data = Sequences.open(run.work / "data" / "train", vocab_size=400).unpacked()
    answers = set()
    for index in range(len(data)):
        labels = data[index]["labels"]
        answers.add(tokenizer.decode(labels[labels != IGNORED]).removesuffix(tokenizer.eos_token))
    assert answers == {f" answer {n}" for n in range(40)}
    run.run("train")
    assert np.isfinite(run.final_record["metrics"]["loss"])
