"""A base in 4 bits. Without a GPU and bitsandbytes: what is refused, what is asked for, what is kept. Where bitsandbytes is
installed, also a whole run: its kernels exist for CPUs too, so only the demand for a GPU is taken out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.method_specs import method_spec
from tests.training.runs import Run
from trainyard.trainer.errors import UserError
from trainyard.trainer.machine.device import Device
from trainyard.trainer.methods.trainer import trained_weights_over_packed
from trainyard.trainer.models.quantize import nf4

GPU = Device("cuda", "a GPU", "BF16", 24_000_000_000)
BITSANDBYTES = importlib.util.find_spec("bitsandbytes")
WITHOUT_A_GPU = f"""
import sys
sys.path.append({str(Path(BITSANDBYTES.origin or "").parent.parent) if BITSANDBYTES else ""!r})
from dataclasses import replace
import bitsandbytes.nn.modules
bitsandbytes.nn.modules.has_avx512bf16 = lambda: False  # another way of packing, which no GPU has
from trainyard.trainer.models import load
original = load.nf4
load.nf4 = lambda device: original(replace(device, kind="cuda"))
"""


def quantized(base: Path, *, method: str = "SFT", **adapter: Any) -> dict[str, Any]:
    spec = method_spec("DPO", base, adapter=True)
    spec["model"]["adapter"] |= {"quantization": "NF4", **adapter}
    spec["training"]["method"] = method
    if method == "SFT":
        for record in spec["datasets"][0]["inline"]["records"]:
            record["completion"] = record.pop("chosen")
            del record["rejected"]
        spec["datasets"][0]["format"] = "PromptCompletion"
    return spec


def test_it_needs_a_gpu_and_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"spec\.model\.adapter\.quantization NF4 needs a GPU") as fault:
        nf4(Device("cpu", "a CPU", "FP32", None))
    assert fault.value.exit_code == 64
    assert "nvidia.com/gpu" in fault.value.hint
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package bitsandbytes"):
        nf4(GPU)


def test_what_transformers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.50.2")  # the configuration class asks for it
    told = nf4(GPU)
    assert told.load_in_4bit
    assert told.bnb_4bit_quant_type == "nf4"
    assert told.bnb_4bit_use_double_quant
    assert told.bnb_4bit_compute_dtype == torch.bfloat16


def test_the_adapter_over_a_packed_base_is_kept_in_fp32() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert trained_weights_over_packed(model) == []
    model.is_loaded_in_4bit = True
    [(parameter, values)] = trained_weights_over_packed(model)
    exact = model.weight.detach().clone()
    model.weight.data = model.weight.data.to(torch.bfloat16)  # what TRL does
    parameter.data = values
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, exact)


@pytest.mark.slow
def test_a_run_without_a_gpu_is_refused(undisturbed: Run, new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.spec = quantized(undisturbed.work / "model")
    run.run("prepare")
    step = run.run("train", expect=64)
    assert "spec.model.adapter.quantization NF4 needs a GPU" in "\n".join(step.lines)
    assert run.final_record["reason"] == "InvalidConfig"


@pytest.mark.slow
@pytest.mark.skipif(BITSANDBYTES is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("method", ["SFT", "DPO"])
def test_a_whole_run(method: str, undisturbed: Run, new_run: Callable[..., Run], tmp_path: Path) -> None:
    base = undisturbed.work / "model"
    whole = new_run(patch=WITHOUT_A_GPU)
    whole.spec = quantized(base, method=method)
    whole.run("prepare")
    run = whole.fork(tmp_path / "stopped")
    run.patch = WITHOUT_A_GPU
    lines = whole.run("train").lines
    assert any("linear layers in NF4" in line for line in lines), lines
    assert whole.final_record["effective"]["quantization"] == "NF4"

    step = run.start("train")
    step.wait_for_line(lambda line: line.startswith("step 6/"))
    step.kill(15)
    assert step.wait() == 75
    run.run("train")
    assert run.model_digest == whole.model_digest, "an exact continuation"

    merged, before = load_file(whole.work / "model" / "model.safetensors"), load_file(base / "model.safetensors")
    assert {name: value.dtype for name, value in merged.items()} == {name: v.dtype for name, v in before.items()}
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert changed
    assert all("_proj" in name for name in changed), "embeddings and norms are the source's own"
    whole.run("evaluate")
