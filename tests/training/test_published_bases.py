"""Bases in forms in which people publish them, trained from beginning to end and measured: with a vision tower, and in FP8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration, LlamaConfig

from tests.training.runs import Run, Zygote
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.tokenizer import train_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 256,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip
TURNS = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"


def tokenizer(folder: Path) -> int:
    """Its number of entries."""
    texts = (f"train {n} of {n * n} stops at station {n % 7}, they say" for n in range(900))
    made = train_tokenizer(texts, 400, folder)
    made.chat_template = TURNS
    made.save_pretrained(folder)
    return len(made)


def gemma(folder: Path) -> Path:
    """A small Gemma 3 with eyes; its tokenizer gives token_type_ids, as the published one does."""
    size = tokenizer(folder)
    values = json.loads((folder / "tokenizer_config.json").read_text())
    values |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config={**TEXT, "vocab_size": size + 3, "sliding_window": 16},
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=size,
        eoi_token_index=size + 1,
        image_token_index=size + 2,
    )
    Gemma3ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def in_fp8(folder: Path) -> Path:
    """A small llama whose linear layers lie in blocks of FP8 with a scale each, as large models are published."""
    size, block = tokenizer(folder), 32
    torch.manual_seed(0)
    config = LlamaConfig(**TEXT, vocab_size=size, tie_word_embeddings=False)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    kept = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            kept[name] = weight
            continue
        rows, columns = weight.shape
        blocks = weight.float().reshape(rows // block, block, columns // block, block) if rows % block == 0 else None
        if blocks is None:  # fewer rows than a block has
            blocks = weight.float().reshape(1, rows, columns // block, block)
        scale = blocks.abs().amax(dim=(1, 3)) / torch.finfo(torch.float8_e4m3fn).max
        packed = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        kept[name], kept[f"{name}_scale_inv"] = packed.reshape(rows, columns).contiguous(), scale
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [block, block],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def planned(zygote: Zygote, tmp_path: Path, source: Path, **model: Any) -> Run:
    records = [
        {"messages": [{"role": "user", "content": f"where stops train {n}?"}, {"role": "assistant", "content": f"at station {n % 7}"}]}
        for n in range(40)
    ]  # fmt: skip
    spec = {
        "model": {"storageUri": f"file://{source}", **model},
        "datasets": [{"name": "stations", "format": "Messages", "inline": {"records": records}, "split": {"eval": 0.2}}],
        "training": {
            "method": "SFT", "maxSteps": 3, "maxLength": 96, "learningRate": 1e-2, "loggingSteps": 1, "evalSteps": 2,
            "perDeviceTrainBatchSize": 4, "precision": "FP32",
        },
    }  # fmt: skip
    return Run(zygote, tmp_path / "run", spec)


def trained(zygote: Zygote, tmp_path: Path, source: Path, **model: Any) -> Run:
    run = planned(zygote, tmp_path, source, **model)
    for step in ("prepare", "train", "evaluate"):
        run.run(step)
    return run


@pytest.mark.parametrize("model", [{}, {"adapter": {"lora": {"rank": 2}}}], ids=["whole", "lora"])
def test_a_gemma_with_eyes_learns_from_texts_and_is_measured(
    zygote: Zygote, tmp_path: Path, model: dict[str, Any]
) -> None:
    source = gemma(tmp_path / "source")
    before = load_file(source / "model.safetensors")
    run = trained(zygote, tmp_path, source, **model)
    assert metric(run, "loss") > 0
    after = load_file(run.work / "model" / "model.safetensors")
    moved = {
        name
        for name, weight in after.items()
        if name in before and not torch.equal(weight.float(), before[name].float())
    }
    assert any("language_model" in name or "layers" in name for name in moved)
    assert AutoTokenizer.from_pretrained(run.work / "model").chat_template == TURNS


@pytest.mark.parametrize("model", [{}, {"adapter": {"lora": {"rank": 2}}}], ids=["whole", "lora"])
def test_a_base_in_fp8_is_trained_and_handed_out_in_full_width(
    zygote: Zygote, tmp_path: Path, model: dict[str, Any]
) -> None:
    source = in_fp8(tmp_path / "source")
    stored = load_file(source / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert stored[name].dtype == torch.float8_e4m3fn
    run = trained(zygote, tmp_path, source, **model)
    result = run.work / "model"
    weights = load_file(result / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}, "as the base's other weights are"
    assert not [name for name in weights if "scale" in name]
    assert "quantization_config" not in json.loads((result / "config.json").read_text())
    unpacked = stored[name].float() * stored[f"{name}_scale_inv"].float().repeat_interleave(32, 1)
    moved = (weights[name] - unpacked).abs()
    assert 0 < moved.max() < 0.1, "from the base's weights, a few steps on"
    assert AutoModelForCausalLM.from_pretrained(result).num_parameters() > 10_000
    assert metric(run, "loss") > 0


def test_a_base_in_fp8_is_not_packed_once_more(zygote: Zygote, tmp_path: Path) -> None:
    adapter = {"lora": {"rank": 2}, "quantization": "NF4"}
    run = planned(zygote, tmp_path, in_fp8(tmp_path / "source"), adapter=adapter)
    run.run("prepare", expect=ExitCode.INVALID_CONFIG)
    assert "are packed already, in FP8" in run.final_record["message"]
    assert "remove the field" in run.final_record["hint"]


def metric(run: Run, name: str) -> float:
    """Of the evaluation."""
    return float(run.final_record["evaluation"]["metrics"][name])
