"""A GGUF of fewer bits: the metadata is that of the source, the values are near its values, and nothing depends on threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from trainyard.trainer.exports.gguf_files import quantize as module
from trainyard.trainer.exports.gguf_files.quantize import quantize, value

WORST = {"Q8_0": 0.01, "Q6_K": 0.03, "Q5_K_M": 0.06, "Q4_K_M": 0.1}
"""Of the values' own size, root of the mean square."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, f16, with rows of 512, 576 and 40."""
    path = tmp_path_factory.mktemp("gguf") / "f16.gguf"
    draw = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 2])
    writer.add_file_type(1)
    writer.add_chat_template("{{ messages }} – ü")
    writer.add_token_list(["a", "b"])
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    for name, size in {
        "token_embd.weight": (64, 512),
        "blk.0.attn_v.weight": (32, 576),
        "blk.0.attn_k.weight": (3, 40),
        "blk.1.ffn_down.weight": (700, 512),
        "blk.1.ffn_up.weight": (8, 512),
    }.items():
        writer.add_tensor(name, draw.normal(size=size).astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(512, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors(path: Path) -> dict[str, Any]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("quantization", list(WORST))
def test_values_are_near_those_of_the_source(source: Path, tmp_path: Path, quantization: str) -> None:
    quantize(source, tmp_path / "q.gguf", quantization, threads=2)
    before, after = tensors(source), tensors(tmp_path / "q.gguf")
    assert list(before) == list(after)
    for name, tensor in after.items():
        was = before[name].data.astype(np.float32).ravel()
        now = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).ravel()
        assert np.sqrt(((was - now) ** 2).mean()) <= WORST[quantization] * np.sqrt((was**2).mean()), name


def test_metadata_is_carried_over_but_for_the_file_type(source: Path, tmp_path: Path) -> None:
    counts = quantize(source, tmp_path / "q.gguf", "Q4_K_M", threads=1)
    one, other = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "q.gguf")
    assert value(other, "general.file_type") == 15
    assert value(other, "general.quantization_version") == 2
    for name in one.fields:
        if not name.startswith("GGUF.") and name != "general.file_type":
            assert value(other, name) == value(one, name), name
    assert counts == {"F16": "1", "F32": "1", "Q4_K": "2", "Q6_K": "1", "Q8_0": "1"}


def test_the_same_file_comes_out_whatever_the_threads_and_the_size_of_blocks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(source, tmp_path / "one.gguf", "Q5_K_M", threads=1)
    monkeypatch.setattr(module, "BLOCK_OF_WEIGHTS", 1500)
    quantize(source, tmp_path / "many.gguf", "Q5_K_M", threads=4)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()
