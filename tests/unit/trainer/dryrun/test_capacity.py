"""Memory, time and cost of a run, from its spec and a few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.dryrun.capacity import (
    accelerator_of,
    capacity_lines,
    describe_capacity,
    describe_outputs,
)

MODEL = {
    "parameters": 1_000_000_000,
    "trainableParameters": 1_000_000_000,
    "estimatedMemoryBytes": 20_000_000_000,
    "optimizerBytes": 12_000_000_000,
}
TRAINING = {"steps": 1000, "epochs": 1.0}
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


def spec(**more: Any) -> TrainingRunSpec:
    return TrainingRunSpec.model_validate(
        {
            "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
            "datasets": [{"name": "d", "inline": {"text": "a"}}],
            "training": {"method": "Pretrain"},
            **more,
        }
    )


def test_time_and_cost_on_a_named_gpu() -> None:
    wanted = spec(**GPU, estimate={"accelerator": "H200", "pricePerHour": 4.0})
    found = describe_capacity(wanted, MODEL, TRAINING, tokens=10**9)
    assert found["seconds"] == round(6 * 1e9 * 1e9 / (989e12 * 0.35))
    assert found["cost"] == pytest.approx(4.0 * found["seconds"] / 3600, abs=0.01)
    assert found["fits"] is True


def test_a_model_that_does_not_fit_is_named() -> None:
    found = describe_capacity(spec(**GPU, estimate={"accelerator": "T4"}), MODEL, TRAINING, tokens=10**6)
    assert found["fits"] is False
    outputs = describe_outputs(Path("/tmp"), spec(), MODEL, 1000)
    assert "DOES NOT FIT" in capacity_lines(found, outputs)[0]


def test_a_gpu_without_a_name_says_where_it_would_fit() -> None:
    found = describe_capacity(spec(**GPU), MODEL, TRAINING, tokens=10**6)
    assert "seconds" not in found
    assert "T4" not in found["fitsOn"]
    assert "L4" in found["fitsOn"]


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA-H200", "H200"),
        ("NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA-GeForce-RTX-4090", "RTX4090"),
        ("NVIDIA-L40S", "L40S"),
        ("Tesla-T4", "T4"),
        ("NVIDIA-B300", None),
        ("", None),
    ],
)
def test_the_gpu_by_the_label_of_its_node(product: str, name: str | None) -> None:
    selector = {"placement": {"nodeSelector": {"nvidia.com/gpu.product": product}}} if product else {}
    assert accelerator_of(spec(**selector)) == name


def test_an_adapter_takes_less_time_and_room() -> None:
    adapted = {**MODEL, "trainableParameters": 1_000_000, "optimizerBytes": 12_000_000}
    wanted = spec(**GPU, estimate={"accelerator": "A100-80GB"})
    whole, less = (describe_capacity(wanted, model, TRAINING, tokens=10**9)["seconds"] for model in (MODEL, adapted))
    assert less == pytest.approx(whole * 2 / 3, abs=1)
    big, small = (describe_outputs(Path("/tmp"), spec(), model, 1000)["neededBytes"] for model in (MODEL, adapted))
    assert small < big / 100


def test_a_cpu_with_a_memory_limit() -> None:
    limited = spec(resources={"limits": {"cpu": "2", "memory": "4Gi"}})
    found = describe_capacity(limited, MODEL, TRAINING, tokens=10**6)
    assert found["memoryBytes"] == 4 * 2**30
    assert found["fits"] is False


@pytest.mark.parametrize(
    ("limit", "size"), [("1Pi", 2**50), ("2P", 2 * 10**15), ("1E", 10**18), (8 * 10**9, 8 * 10**9)]
)
def test_a_limit_of_any_size_is_read_as_kubernetes_reads_it(limit: str | int, size: int) -> None:
    found = describe_capacity(spec(resources={"limits": {"memory": limit}}), MODEL, TRAINING, tokens=10**6)
    assert found["memoryBytes"] == size
    assert found["fits"] is (size >= found["memoryNeededBytes"])


def test_cores_are_those_of_the_limit_or_else_of_the_request_and_one_at_least() -> None:
    for resources, cores in (
        ({"limits": {"cpu": "2500m"}, "requests": {"cpu": 1}}, 2.5),
        ({"requests": {"cpu": 3}}, 3.0),
        ({"requests": {"cpu": "100m"}}, 1.0),
        ({}, 1.0),
    ):
        assert describe_capacity(spec(resources=resources), MODEL, TRAINING, tokens=10**6)["cores"] == cores
