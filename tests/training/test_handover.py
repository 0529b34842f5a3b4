"""Results are read by transformers 4 with the same logits, and what a base's authors wrote beside its weights stays."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, LlamaConfig, Qwen3Config

from tests.training.runs import Run, Zygote
from trainyard.trainer.data.tokenizer import copy_tokenizer, train_tokenizer
from trainyard.trainer.errors import UserError
from trainyard.trainer.models.finite import refuse_broken_weights
from trainyard.trainer.models.handover import save_model, try_to_save, write_for_older_readers

pytestmark = pytest.mark.slow

OLD = ("transformers==4.57.6", "tokenizers==0.22.2", "huggingface_hub==0.36.2")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 420,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}),
    "llama3": LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "qwen3": Qwen3Config(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 5_000_000.0}),
    "gemma3": Gemma3TextConfig(**SIZES, rope_parameters=GEMMA3, sliding_window=16),
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with transformers 4.57, and for all else the packages of this one."""
    place = tmp_path_factory.mktemp("old")
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", *OLD], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"the package index does not give {OLD[0]}: {done.stderr.strip()[-200:]}")
    packages = next((place / "lib").iterdir()) / "site-packages"
    ours = sysconfig.get_path("purelib")
    (packages / "zz-the-others.pth").write_text(f"import sys; sys.path.append({ours!r})\n")
    return python


def read(python: Path | str, folder: Path, tmp_path: Path) -> tuple[dict[str, Any], torch.Tensor]:
    file = tmp_path / "logits.pt"
    program = Path(__file__).with_name("read_model.py")
    done = subprocess.run([python, program, folder, file], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    logits: torch.Tensor = torch.load(file)
    return json.loads(done.stdout.splitlines()[-1]), logits


def base(folder: Path, kind: str = "llama", **generation: Any) -> Path:
    """A base as people publish it: with a class of its tokenizer, and settings of generation."""
    texts = (f"train {n} of {n * n} stops at station {n % 7}, they say" for n in range(900))
    made = folder / "made"
    train_tokenizer(texts, 400, made)
    source = folder / "source"
    copy_tokenizer(made, source, uri="x")
    values = json.loads((source / "tokenizer_config.json").read_text())
    values |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }
    (source / "tokenizer_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind])).to(torch.bfloat16).save_pretrained(source)
    settings = {"bos_token_id": 0, "eos_token_id": [0, 3], **generation}
    (source / "generation_config.json").write_text(json.dumps(settings))
    (source / "preprocessor_config.json").write_text('{"image_processor_type": "SomeImageProcessor"}')
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    return source


def trained(zygote: Zygote, source: Path, tmp_path: Path, **model: Any) -> Run:
    text = " ".join(f"train {n} stops at station {n % 7}." for n in range(400))
    spec = {
        "model": {"storageUri": f"file://{source}", **model},
        "datasets": [{"name": "stations", "inline": {"text": text}}],
        "training": {"method": "CPT", "maxSteps": 2, "maxLength": 64, "learningRate": 1e-3},
        "checkpoints": {"everySteps": 1},
        "evaluation": {"enabled": False},
    }
    run = Run(zygote, tmp_path / "run", spec)
    run.run("prepare")
    run.run("train")
    return run


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_4_reads_the_same_numbers(kind: str, old: Path, tmp_path: Path) -> None:
    source = base(tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(source)
    result = tmp_path / "result"
    save_model(model, result, source=source)
    copy_tokenizer(source, result, uri="x")
    here, ours = read(sys.executable, result, tmp_path)
    there, theirs = read(old, result, tmp_path)
    assert (here["version"], there["version"]) == ("5.23.0", "4.57.6")
    assert here["ids"] == there["ids"]
    assert here["text"] == there["text"]
    assert set(here["special"]) == set(there["special"])
    assert torch.equal(ours, theirs), (ours - theirs).abs().max()


@pytest.mark.parametrize("model", [{}, {"adapter": {"lora": {"rank": 2}}}], ids=["whole", "lora"])
def test_a_base_with_a_temperature_is_trained_to_the_end(
    model: dict[str, Any], old: Path, zygote: Zygote, tmp_path: Path
) -> None:
    source = base(tmp_path, temperature=0.6, top_p=0.95)
    result = trained(zygote, source, tmp_path, **model).work / "model"
    kept = json.loads((result / "generation_config.json").read_text())
    assert (kept["temperature"], kept["top_p"]) == (0.6, 0.95)
    assert "do_sample" not in kept, "what the authors did not say is not said for them"
    assert (result / "preprocessor_config.json").read_text() == (source / "preprocessor_config.json").read_text()
    values = json.loads((result / "tokenizer_config.json").read_text())
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert values["chat_template"] == (result / "chat_template.jinja").read_text()
    card = (result / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "| stations |" in card
    assert str(source) not in card, "no address"
    _, ours = read(sys.executable, result, tmp_path)
    there, theirs = read(old, result, tmp_path)
    assert torch.equal(ours, theirs)
    assert there["temperature"] == 0.6


def test_a_save_that_would_be_refused_is_known_before_the_first_step(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama"]))
    try_to_save(model, "pvc://m/base")
    model.hf_quantizer = None
    model.config.odd = object()
    with pytest.raises(UserError, match="pvc://m/base can be loaded and not saved again: "):
        try_to_save(model, "pvc://m/base")


def test_the_weights_are_not_lost_for_a_file_beside_them(tmp_path: Path) -> None:
    source = base(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(source)
    model.config.odd = object()
    result = tmp_path / "result"
    result.mkdir()
    save_model(model, result, source=source)
    again: Any = AutoModelForCausalLM.from_pretrained(result)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_save_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama"])).to(torch.bfloat16)
    before, generation = model.config.dtype, model.generation_config
    save_model(model, tmp_path)
    assert model.config.dtype is before
    assert model.generation_config is generation


def test_weights_that_are_no_numbers_are_named() -> None:
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama"]))
    refuse_broken_weights(model, "pvc://m/base")
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = float("nan")
    with pytest.raises(UserError, match=r"1 of 2,048 weights in model\.layers\.1\.mlp\.up_proj\.weight are not finite"):
        refuse_broken_weights(model, "pvc://m/base")


def test_older_names_do_not_replace_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"rope_theta": 7.0, "rope_parameters": {"rope_type": "default", "rope_theta": 8.0}}))
    write_for_older_readers(file)
    assert json.loads(file.read_text())["rope_theta"] == 7.0


def test_the_tokenizer_class_of_the_source_stays(tmp_path: Path) -> None:
    source = base(tmp_path)
    for given, kept in (("Qwen2Tokenizer", "Qwen2Tokenizer"), ("TokenizersBackend", "PreTrainedTokenizerFast")):
        values = json.loads((source / "tokenizer_config.json").read_text())
        (source / "tokenizer_config.json").write_text(json.dumps({**values, "tokenizer_class": given}))
        copy_tokenizer(source, tmp_path / given, uri="x")
        written = json.loads((tmp_path / given / "tokenizer_config.json").read_text())
        assert written["tokenizer_class"] == kept
        assert not {"is_local", "local_files_only", "backend"} & written.keys()
        assert AutoTokenizer.from_pretrained(tmp_path / given)("train 12").input_ids
