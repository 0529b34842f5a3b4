"""Our quantized files beside those of llama.cpp's own quantizer: the same types, tensor by tensor, and the same error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.servers.ollama_server import quantizer_program
from tests.training.small_llama import small_llama
from trainyard.trainer.exports.gguf_files.convert import convert
from trainyard.trainer.exports.gguf_files.quantize import quantize, value
from trainyard.trainer.exports.gguf_files.recipe import FILE_TYPE

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3600)]
LAYERS = 16
"""So many that the first and last eighth, and every third between, are told apart; and that 10 comes after 2 only as a number."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_llama(tmp_path_factory.mktemp("model"), layers=LAYERS)
    convert(folder, folder / "f16.gguf", name="tiny", field="spec.exports[local].gguf")
    return folder / "f16.gguf"


@pytest.mark.parametrize("quantization", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
def test_each_tensor_has_the_type_that_llama_cpp_gives_it(full: Path, tmp_path: Path, quantization: str) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    quantize(full, ours, quantization, threads=1)
    words = [str(quantizer_program()), str(full), str(theirs), str(FILE_TYPE[quantization]), "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    mine, other = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    types = [{tensor.name: tensor.tensor_type.name for tensor in file.tensors} for file in (mine, other)]
    assert types[0] == types[1]
    assert ours.stat().st_size == pytest.approx(theirs.stat().st_size, rel=1e-3)
    assert value(mine, "general.file_type") == value(other, "general.file_type")
    known, source = ({tensor.name: tensor for tensor in file.tensors} for file in (other, gguf.GGUFReader(full)))
    for tensor in mine.tensors:
        exact, found, whole = (
            gguf.dequantize(one.data, one.tensor_type) for one in (known[tensor.name], tensor, source[tensor.name])
        )
        errors = [float(np.abs(one - whole).mean()) for one in (found, exact)]
        assert errors[0] == pytest.approx(errors[1], rel=0.01), tensor.name
        assert np.abs(found - exact).mean() < 0.01 * np.abs(exact).mean(), tensor.name
