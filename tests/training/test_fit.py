"""Bases whose configuration and weights do not go together are refused before the first step, with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_llama import small_llama
from tests.unit.trainer.run_contexts import context_of
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.models.fit import check_base_model

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("good"), layers=1)


@pytest.fixture
def base(tmp_path: Path, good: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "volumes" / "m" / "base"))


def check(place: Path, **spec: Any) -> None:
    data = {"name": "d", "format": "PromptCompletion", "inline": {"records": [{"prompt": "a", "completion": "b"}]}}
    model = spec.pop("model", {"storageUri": "pvc://m/base"})
    training = {"method": "SFT", "maxLength": 64, **spec.pop("training", {})}
    check_base_model(context_of(place, {"model": model, "datasets": [data], "training": training, **spec}))


def configured(file: str = "config.json", **values: Any) -> Change:
    def change(folder: Path) -> None:
        there = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps({k: v for k, v in there.items() if v is not ...}))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def write(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return write


REFUSED: dict[str, tuple[Change, str]] = {
    "no model_type": (
        configured(model_type=..., architectures=...),
        "has no configuration that can be read: config.json has no model_type",
    ),
    "an unknown kind": (
        configured(model_type="llama9"),
        "is of kind 'llama9', which the transformers of this image does not know",
    ),
    "heads that do not divide": (
        configured(num_attention_heads=3),
        "The hidden size (256) is not a multiple of the number of attention heads (3)",
    ),
    "a number that is a text": (configured(vocab_size="many"), "Field 'vocab_size' expected int, got str (value: 'many')"),
    "an activation that is none": (configured(hidden_act="zoom"), "'zoom' is not known"),
    "a kind of rotation that is none": (
        configured(rope_parameters={"rope_type": "strange", "rope_theta": 1e4}),
        "'strange' is not known",
    ),
    "other sizes": (
        configured(vocab_size=100),
        "weights and config.json are of different models: lm_head.weight is 400 x 256, config.json makes it 100 x 256 (and 1 more)",
    ),
    "other heads": (
        configured(num_key_value_heads=1),
        "weights and config.json are of different models: model.layers.0.self_attn.k_proj.weight is 128 x 256, config.json makes "
        "it 64 x 256 (and 1 more)",
    ),
    "more layers than there are": (
        configured(num_hidden_layers=2),
        "9 weights that config.json asks for are not there, and would be random: model.layers.1.input_layernorm.weight, ",
    ),
    "a weight is missing": (
        weights(lambda tensors: tensors.pop("model.norm.weight")),
        "1 weights that config.json asks for are not there, and would be random: model.norm.weight",
    ),
    "a model without its head": (
        weights(lambda tensors: tensors.pop("lm_head.weight")),
        "1 weights that config.json asks for are not there, and would be random: lm_head.weight",
    ),
    "a weight of another size": (
        weights(lambda tensors: tensors.update({"model.norm.weight": torch.ones(255)})),
        "model.norm.weight is 255, config.json makes it 256",
    ),
    "generation settings that nobody can use": (
        configured("generation_config.json", max_new_tokens=-1),
        "`max_new_tokens` must be greater than 0, but is -1",
    ),
    "a folder in the place of the weights": (
        lambda folder: ((folder / "model.safetensors").unlink(), (folder / "model.safetensors").mkdir()),
        "model.safetensors is a folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_in_the_first_step(tmp_path: Path, base: Path, case: str) -> None:
    change, said = REFUSED[case]
    change(base)
    with pytest.raises(UserError) as caught:
        check(tmp_path)
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    assert "pvc://m/base" in str(caught.value)
    assert said in str(caught.value)


def test_whole_and_tied_models_fit(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(tmp_path)
    weights(lambda tensors: tensors.pop("lm_head.weight"))(base)
    configured(tie_word_embeddings=True)(base)
    check(tmp_path)
    assert "warning" not in capsys.readouterr().out.lower()


def test_weights_that_nothing_asks_for_are_told(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configured(num_hidden_layers=0)(base)
    check(tmp_path)
    told = capsys.readouterr()
    assert "pvc://m/base: 9 weights are not used, because config.json does not ask for them: model.layers.0." in (
        told.out + told.err
    )


def test_a_language_model_gets_a_head_that_scores_and_is_none_yet(tmp_path: Path, base: Path) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    data = {"name": "d", "format": "Preference", "inline": {"records": [pair]}}
    check(tmp_path, datasets=[data], training={"method": "RewardModel"})
    rewards = [{"weight": 1, "model": {"storageUri": "pvc://m/base"}}]
    prompts = {"name": "d", "format": "Prompt", "inline": {"records": [{"prompt": "a"}]}}
    with pytest.raises(UserError, match=r"rewards.*would be random: score.weight"):
        check(tmp_path, datasets=[prompts], training={"method": "PPO", "rewards": rewards})
