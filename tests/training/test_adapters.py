"""Kinds of adapters and optimizers as whole runs: each does something of its own, and is continued to the bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.runs import Run, tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"lora": {"dora": True}},
    "rsLora": {"lora": {"rsLora": True}},
    "loraPlus": {"lora": {"loraPlusRatio": 8}},
    "pissa": {"lora": {"initialisation": "PiSSA"}},
    "tokens": {"lora": {"trainableTokens": ["<|endoftext|>", "Ġstation"]}},
    "neftune": {"training": {"neftuneNoiseAlpha": 5}},
    "muon": {"training": {"optim": "muon"}},
}


def spec_of(kind: str, base: Path) -> dict[str, Any]:
    """12 steps of CPT with accumulation, an adapter with dropout, and an evaluation in between."""
    spec = tiny_spec()
    spec["model"] = {
        "storageUri": f"file://{base}",
        "adapter": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1, **KINDS[kind].get("lora", {})}},
    }
    spec["training"] |= {"method": "CPT", "maxSteps": 12, "evalSteps": 5, "loggingSteps": 1, "learningRate": 1e-3}
    spec["training"] |= KINDS[kind].get("training", {})
    return spec


@pytest.fixture(scope="module")
def base(undisturbed: Run) -> Path:
    return undisturbed.work / "model"


@pytest.fixture(scope="module")
def digests(zygote: Any, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each kind, trained from beginning to end."""
    runs = {}
    for kind in KINDS:
        run = Run(zygote, tmp_path_factory.mktemp(kind), spec_of(kind, base))
        run.run("prepare")
        run.run("train")
        runs[kind] = run
    return runs


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_and_a_killed_training_go_on_to_the_bit(kind: str, digests: dict[str, Run], tmp_path: Path) -> None:
    whole = digests[kind]
    run = whole.fork(tmp_path / "stopped")
    run.stop("step 3/")
    step = run.start("train")
    step.wait_for_line(lambda line: line.startswith("step 7/"))
    step.kill()
    step.wait()
    run.run("train")
    assert run.model_digest == whole.model_digest


def test_every_kind_ends_elsewhere(digests: dict[str, Run]) -> None:
    assert len({run.model_digest for run in digests.values()}) == len(KINDS)


@pytest.mark.parametrize("kind", ["dora", "rsLora", "pissa", "tokens"])
def test_the_adapter_over_its_base_is_the_merged_model(kind: str, digests: dict[str, Run], base: Path) -> None:
    work = digests[kind].work
    ids = torch.arange(4, 30)[None]
    with torch.no_grad():
        over = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), work / "adapter").eval()
        merged = AutoModelForCausalLM.from_pretrained(work / "model").eval()
        assert torch.allclose(over(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-4)


def test_only_the_named_tokens_have_moved(digests: dict[str, Run], base: Path) -> None:
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    after = load_file(digests["tokens"].work / "model" / "model.safetensors")["model.embed_tokens.weight"]
    moved = (before != after).any(dim=1).nonzero()[:, 0].tolist()
    vocabulary = AutoTokenizer.from_pretrained(base).get_vocab()
    assert set(moved) <= {vocabulary["<|endoftext|>"], vocabulary["Ġstation"]}
    assert moved


def test_an_adapter_is_gone_on_with(digests: dict[str, Run], base: Path, new_run: Callable[..., Run]) -> None:
    """Where the first one has ended: the start of the second is the result of the first, and is what it is compared with."""
    first = digests["plain"]
    first.run("evaluate")
    run = new_run()
    run.spec = copy.deepcopy(first.spec)
    run.spec["model"]["adapter"] = {"lora": {"rank": 4}, "from": f"file://{first.work / 'adapter'}"}
    run.spec["training"] |= {"learningRate": 1e-12, "maxSteps": 2}
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    ended, went_on = (json.loads((r.work / "evaluation" / "metrics.json").read_text()) for r in (first, run))
    assert went_on["baseline"]["loss"] == pytest.approx(ended["metrics"]["loss"], abs=1e-4)
    assert went_on["metrics"]["loss"] == pytest.approx(ended["metrics"]["loss"], abs=1e-4)
    assert ended["baseline"]["loss"] - ended["metrics"]["loss"] > 1e-3, "the first has learned something"
    config = json.loads((run.work / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)


def test_a_continued_adapter_is_resumed_exactly(
    digests: dict[str, Run], base: Path, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    whole = new_run()
    whole.spec = copy.deepcopy(digests["plain"].spec)
    whole.spec["model"]["adapter"] = {"lora": {"dropout": 0.2}, "from": f"file://{digests['dora'].work / 'adapter'}"}
    whole.run("prepare")
    run = whole.fork(tmp_path / "stopped")
    whole.run("train")
    run.stop("step 6/")
    run.run("train")
    assert run.model_digest == whole.model_digest
    assert whole.model_digest not in {other.model_digest for other in digests.values()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"from": "adapter", "lora": {"rank": 8}}, "spec.model.adapter.lora.rank 8 is not what the adapter"),
        ({"from": "adapter", "lora": {"targetModules": ["q_proj"]}}, "remove spec.model.adapter.lora.targetModules"),
        ({"from": "model", "lora": {}}, "has no adapter_config.json"),
        ({"lora": {"trainableTokens": ["nowhere at all"]}}, "is no token of the tokenizer"),
    ],
)
def test_a_wrong_adapter_is_told(
    change: dict[str, Any], told: str, digests: dict[str, Run], new_run: Callable[..., Run]
) -> None:
    run = new_run()
    run.spec = copy.deepcopy(digests["plain"].spec)
    given = change | ({"from": f"file://{digests['plain'].work / change['from']}"} if "from" in change else {})
    run.spec["model"]["adapter"] = given
    if "from" in change:
        step = run.run("validate", expect=64)
    else:
        run.run("prepare")
        step = run.run("train", expect=64)
    assert told in "\n".join(step.lines), "\n".join(step.lines)
