"""Models that cannot be trained are refused in the first step, without a GPU and without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.unit.trainer.run_contexts import context_of, prepared
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.errors import UserError
from trainyard.trainer.models.base import check_model
from trainyard.trainer.volume.weights import check_weights, embeddings_of

LLAMA = {"model_type": "llama", "max_position_embeddings": 128, "vocab_size": 400}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538090408\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model on claim m, in two files with their index."""
    folder = tmp_path / "volumes" / "m" / "base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    save_file({"model.embed_tokens.weight": np.zeros((400, 8), np.float32)}, folder / names[0])
    save_file({"lm_head.weight": np.zeros((400, 8), np.float32)}, folder / names[1])
    index = {"weight_map": {"model.embed_tokens.weight": names[0], "lm_head.weight": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def context(tmp_path: Path, **spec: Any) -> RunContext:
    text = {"name": "d", "inline": {"text": "some text"}}
    model = spec.pop("model", {"storageUri": "pvc://m/base"})
    training = {"method": "CPT", "maxLength": 64, **spec.pop("training", {})}
    return context_of(tmp_path, {"model": model, "datasets": [text], "training": training, **spec})


def refused(tmp_path: Path, **spec: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_model(context(tmp_path, **spec))
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    return str(caught.value)


def configured(model: Path, **more: Any) -> None:
    (model / "config.json").write_text(json.dumps({**LLAMA, **more}))


def test_a_whole_model_is_fine(tmp_path: Path, model: Path) -> None:
    check_model(context(tmp_path))
    assert embeddings_of(model) == 400


class TestWeights:
    def test_a_pointer_of_git_lfs(self, tmp_path: Path, model: Path) -> None:
        (model / "model-00002-of-00002.safetensors").write_text(POINTER)
        assert refused(tmp_path) == (
            "pvc://m/base: model-00002-of-00002.safetensors is a pointer of git-lfs and not the file (run git lfs pull in that "
            "folder)"
        )

    def test_an_index_that_is_one(self, tmp_path: Path, model: Path) -> None:
        (model / "model.safetensors.index.json").write_text(POINTER)
        assert "model.safetensors.index.json is a pointer of git-lfs" in refused(tmp_path)
        (model / "model.safetensors.index.json").write_text("[]")
        assert "model.safetensors.index.json is no index of weights (copy the folder again" in refused(tmp_path)

    def test_a_missing_shard(self, tmp_path: Path, model: Path) -> None:
        (model / "model-00002-of-00002.safetensors").unlink()
        assert refused(tmp_path) == (
            "pvc://m/base: 1 of 2 files of weights are missing: model-00002-of-00002.safetensors (copy the folder again, as a "
            "whole)"
        )

    def test_a_file_that_is_cut_off(self, tmp_path: Path, model: Path) -> None:
        file = model / "model-00001-of-00002.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-100])
        assert f"is cut off: it has {len(whole) - 100} of {len(whole)} bytes" in refused(tmp_path)
        for left in (0, 4, 40):
            file.write_bytes(whole[:left])
            assert f"({left} bytes) is cut off, or no safetensors file" in refused(tmp_path)

    @pytest.mark.parametrize(
        "content", [b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"\x0a" + b"\0" * 7 + b'{"a": 500}', b"PK\x03\x04" * 9]
    )
    def test_a_file_that_is_something_else(self, tmp_path: Path, model: Path, content: bytes) -> None:
        (model / "model-00001-of-00002.safetensors").write_bytes(content)
        assert refused(tmp_path).startswith("pvc://m/base: model-00001-of-00002.safetensors ")

    def test_weights_that_would_have_to_be_unpickled(self, tmp_path: Path, model: Path) -> None:
        for file in model.glob("model*"):
            file.unlink()
        (model / "pytorch_model.bin").write_bytes(b"x")
        assert refused(tmp_path).startswith(
            "pvc://m/base has no weights as safetensors (it has pytorch_model.bin) (convert it"
        )

    def test_only_the_file_that_is_loaded_matters(self, model: Path) -> None:
        save_file({"model.embed_tokens.weight": np.zeros((4, 8), np.float32)}, model / "model.safetensors")
        (model / "model-00001-of-00002.safetensors").unlink()
        check_weights(model, "x")


class TestConfigurations:
    def test_none_that_can_be_read(self, tmp_path: Path, model: Path) -> None:
        for content in ("{", "[]", POINTER):
            (model / "config.json").write_text(content)
            assert "pvc://m/base has no configuration that can be read: " in refused(tmp_path)
        (model / "config.json").unlink()
        assert "pvc://m/base has no configuration that can be read: " in refused(tmp_path)

    def test_packed_weights_that_the_image_cannot_read(self, tmp_path: Path, model: Path) -> None:
        configured(model, quantization_config={"quant_method": "gptq", "bits": 4})
        assert refused(tmp_path).startswith(
            "pvc://m/base has weights packed with gptq, and the image has no optimum to read them (use the model as it was before"
        )
        configured(model, quantization_config={"quant_method": "fp8"})
        check_model(context(tmp_path, model={"storageUri": "pvc://m/base", "adapter": {"lora": {}}}))

    def test_packed_weights_that_cannot_be_trained(self, tmp_path: Path, model: Path) -> None:
        configured(model, quantization_config={"quant_method": "mxfp4"})
        assert refused(tmp_path) == (
            "pvc://m/base has weights packed with mxfp4, which cannot be trained as a whole (use the model as it was before it was "
            "packed, or train an adapter over it (spec.model.adapter))"
        )
        configured(model, quantization_config={"quant_method": "quark"})
        adapter = {"storageUri": "pvc://m/base", "adapter": {"lora": {}}}
        assert "packed with quark, which cannot be trained (use" in refused(tmp_path, model=adapter)

    def test_an_adapter_instead_of_a_model(self, tmp_path: Path, model: Path) -> None:
        (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
        assert refused(tmp_path) == (
            "pvc://m/base is an adapter (adapter_config.json) and not a model (name its base (org/base) to train a new adapter, or "
            "a model with the adapter merged into it (spec.model.adapter.merge: true))"
        )

    def test_an_adapter_on_the_embeddings(self, tmp_path: Path, model: Path) -> None:
        lora = {"targetModules": ["q_proj", "model.embed_tokens"]}
        told = refused(tmp_path, model={"storageUri": "pvc://m/base", "adapter": {"lora": lora}})
        assert "targetModules: model.embed_tokens holds embeddings, which cannot carry an adapter here" in told

    def test_a_model_with_code_of_its_own(self, tmp_path: Path, model: Path) -> None:
        configured(model, model_type="ours", auto_map={"AutoModelForCausalLM": "modeling_ours.Ours"})
        assert "pvc://m/base is of kind 'ours' and brings its own code, which is not run" in refused(tmp_path)

    def test_a_model_that_writes_no_text(self, tmp_path: Path, model: Path) -> None:
        configured(model, model_type="vit")
        assert "pvc://m/base is of kind 'vit', which is no causal language model" in refused(tmp_path)

    def test_too_few_positions(self, tmp_path: Path, model: Path) -> None:
        assert refused(tmp_path, training={"maxLength": 129}) == (
            "spec.training.maxLength 129 is more than the 128 positions of the model (lower maxLength to 128 or less)"
        )


def test_a_tokenizer_of_another_model(tmp_path: Path, model: Path) -> None:
    train_tokenizer((f"{n} is what number {n * n} says of {n * 7}" for n in range(900)), 500, model)
    with pytest.raises(UserError, match=r"the tokenizer has \d+ entries, the model only 400 embeddings") as caught:
        prepared(context(tmp_path), tmp_path, prepare=prepare)
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG


def test_what_a_phase_will_hand_on_is_not_looked_for(tmp_path: Path, model: Path) -> None:
    made = context(tmp_path)
    spec = made.run.spec.model_copy(
        update={"model": made.model.model_copy(update={"storage_uri": f"file://{made.work_dir}/phases/one/model"})}
    )
    from dataclasses import replace

    check_model(replace(made, run=made.run.model_copy(update={"spec": spec})))


def test_it_takes_no_torch() -> None:
    import subprocess

    program = "import sys; sys.path[:0] = %r\nimport trainyard.trainer.models.base\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program % sys.path], check=False).returncode == 0
