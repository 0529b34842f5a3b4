"""Specs that cannot be honoured: the exit code, the field, the value and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.training.runs import Run
from trainyard.api.exitcodes import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def scratch(**config: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["model"]["scratch"]["config"].update(config)


def architecture(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["model"]["scratch"].update(architecture=name)


def training(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["training"].update(fields)


def extra(**arguments: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["training"].update(extraArgs=arguments)


WRONG: list[tuple[str, Callable[[dict[str, Any]], None], str, str]] = [
    (
        "misspelt architecture",
        architecture("lama"),
        "spec.model.scratch.architecture 'lama' is unknown",
        "did you mean llama?",
    ),
    (
        "no language model",
        architecture("vit"),
        "spec.model.scratch.architecture 'vit' is no causal language model",
        "use one that generates text",
    ),
    (
        "misspelt field",
        scratch(hidden_sise=64),
        "spec.model.scratch.config.hidden_sise is not a field of LlamaConfig",
        "did you mean hidden_size?",
    ),
    (
        "camel case field",
        scratch(hiddenSize=64),
        "spec.model.scratch.config.hiddenSize is not a field of LlamaConfig",
        "did you mean hidden_size?",
    ),
    (
        "sizes that do not divide",
        scratch(hidden_size=33),
        "spec.model.scratch.config is refused by llama",
        "",
    ),
    (
        "text for a number",
        scratch(hidden_size="64"),
        "expected int, got str (value: '64')",
        "",
    ),
    (
        "too few positions",
        scratch(max_position_embeddings=16),
        "spec.model.scratch.config.max_position_embeddings 16 is below spec.training.maxLength 64",
        "",
    ),
    (
        "a vocabulary below the tokenizer's",
        scratch(vocab_size=10),
        "spec.model.scratch.config.vocab_size 10 is below the tokenizer's 400 entries",
        "leave it out",
    ),
    (
        "misspelt argument",
        extra(weight_decey=0.1),
        "spec.training.extraArgs.weight_decey is not an argument of SFTConfig",
        "did you mean weight_decay?",
    ),
    (
        "camel case argument",
        extra(adamBeta1=0.8),
        "spec.training.extraArgs.adamBeta1 is not an argument of SFTConfig",
        "did you mean adam_beta1?",
    ),
    (
        "argument of the wrong type",
        extra(adam_beta1="0.8"),
        "spec.training.extraArgs.adam_beta1: '0.8' has the wrong type, expected float",
        "a number is written without quotes",
    ),
    (
        "argument with a field of its own",
        extra(learning_rate=0.1),
        "spec.training.extraArgs.learning_rate: this has a field of its own",
        "use spec.training.learningRate",
    ),
    (
        "argument without effect",
        extra(save_strategy="no"),
        "spec.training.extraArgs.save_strategy would have no effect: where and when it saves is the trainer's own",
        "remove it",
    ),
    (
        "argument that the class refuses",
        extra(loss_type="huber"),
        "spec.training is refused by TRL: Invalid `loss_type` huber",
        "extraArgs",
    ),
    (
        "a schedule that needs an argument",
        training(lrSchedulerType="cosine_with_min_lr"),
        "spec.training is refused by TRL: ",
        "extraArgs",
    ),
    (
        "misspelt optimizer",
        training(optim="adamw_torhc"),
        "spec.training.optim 'adamw_torhc' is unknown",
        "did you mean adamw_torch?",
    ),
    (
        "optimizer that is not installed",
        training(optim="paged_adamw_8bit"),
        "spec.training.optim paged_adamw_8bit needs the package bitsandbytes, which this image has not",
        "",
    ),
    (
        "precision that needs a GPU",
        training(precision="FP16"),
        "spec.training.precision FP16 needs a GPU, and this step has none",
        "use Auto",
    ),
]


@pytest.fixture(scope="module")
def prepared(undisturbed: Run) -> Run:
    return undisturbed


@pytest.mark.parametrize(("change", "message", "hint"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_is_refused_with_the_field_and_the_way_out(
    prepared: Run, tmp_path: Any, change: Callable[[dict[str, Any]], None], message: str, hint: str
) -> None:
    run = prepared.fork(tmp_path)
    change(run.spec)
    run.run("train", expect=ExitCode.INVALID_CONFIG)
    record = run.final_record
    assert record["outcome"] == "Failed"
    assert record["reason"] == "InvalidConfig"
    assert message in record["message"]
    assert hint in (record.get("hint") or "")
    assert record["lastLogLines"]


LORA_WRONG = [
    (["q_prj"], "the model has no linear layer 'q_prj'", "did you mean q_proj?"),
    (["lm_head"], "lm_head is the output head", "remove it"),
]


@pytest.mark.parametrize(("targets", "message", "hint"), LORA_WRONG)
def test_an_adapter_on_a_layer_that_is_not_there(
    prepared: Run, new_run: Callable[..., Run], targets: list[str], message: str, hint: str
) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {
            "storageUri": f"file://{prepared.work / 'model'}",
            "adapter": {"lora": {"targetModules": targets}},
        }
        spec["training"]["method"] = "SFT"

    run = new_run(change)
    run.run("prepare")
    run.run("train", expect=ExitCode.INVALID_CONFIG)
    assert message in run.final_record["message"]
    assert hint in run.final_record["hint"]


def test_a_model_without_enough_positions(prepared: Run, new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {"storageUri": f"file://{prepared.work / 'model'}"}
        spec["training"] |= {"method": "CPT", "maxLength": 4096}

    run = new_run(change)
    run.run("prepare", expect=ExitCode.INVALID_CONFIG)
    assert "spec.training.maxLength 4096 is more than the 2048 positions of the model" in run.final_record["message"]


def test_weights_that_would_have_to_be_unpickled(prepared: Run, new_run: Callable[..., Run]) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["model"] = {"storageUri": "pvc://models/pickled"}
        spec["training"]["method"] = "CPT"

    run = new_run(change)
    folder = run.folder / "volumes" / "models" / "pickled"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((prepared.work / "model" / name).read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    run.run("prepare", expect=ExitCode.INVALID_CONFIG)
    assert "has no weights as safetensors" in run.final_record["message"]


def test_data_and_spec_that_do_not_belong_together(prepared: Run, tmp_path: Any) -> None:
    run = prepared.fork(tmp_path)
    run.spec["training"]["maxLength"] = 32
    run.run("train", expect=ExitCode.INVALID_CONFIG)
    assert "was made from other datasets, or with other settings" in run.final_record["message"]


def test_extra_arguments_reach_the_trainer(prepared: Run, tmp_path: Any) -> None:
    run = prepared.fork(tmp_path)
    run.spec["training"] |= {"maxSteps": 4, "extraArgs": {"adam_beta1": 0.5, "adam_beta2": 0.9}}
    run.run("train")
    usual = prepared.fork(tmp_path / "usual")
    usual.spec["training"]["maxSteps"] = 4
    usual.run("train")
    assert run.model_digest != usual.model_digest


def test_the_other_optimizers_and_schedules_that_the_api_offers(prepared: Run, tmp_path: Any) -> None:
    from trainyard.api.run.training import SCHEDULERS

    needs = {
        "cosine_with_min_lr": {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        "warmup_stable_decay": {"lr_scheduler_kwargs": {"num_decay_steps": 1}},
    }
    for number, schedule in enumerate(SCHEDULERS):
        run = prepared.fork(tmp_path / schedule)
        optimizer = ("adamw_torch", "adafactor", "sgd", "adamw_torch_fused")[number % 4]
        run.spec["training"] |= {
            "maxSteps": 3,
            "lrSchedulerType": schedule,
            "warmupSteps": 1,
            "optim": optimizer,
            "extraArgs": needs.get(schedule, {}),
        }
        run.run("train")
        assert run.final_record["stepNumber"] == 3


def test_running_out_of_device_memory_has_its_own_exit_code() -> None:
    import torch

    from trainyard.trainer.errors import describe

    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        fault = describe(error)
        assert fault.exit_code == ExitCode.DEVICE_OUT_OF_MEMORY
        assert "perDeviceTrainBatchSize" in fault.hint


EARLY = [
    case
    for case in WRONG
    if case[0]
    in {
        "misspelt architecture",
        "no language model",
        "misspelt field",
        "camel case field",
        "misspelt argument",
        "camel case argument",
    }
]


@pytest.mark.parametrize(("change", "message", "hint"), [w[1:] for w in EARLY], ids=[w[0] for w in EARLY])
def test_misspelt_names_are_told_by_the_first_step_in_the_same_words(
    new_run: Callable[..., Run], change: Callable[[dict[str, Any]], None], message: str, hint: str
) -> None:
    run = new_run(change)
    run.run("prepare", expect=ExitCode.INVALID_CONFIG)
    assert message in run.final_record["message"]
    assert hint in run.final_record["hint"]


def test_names_read_from_the_sources_are_those_of_the_classes() -> None:
    from dataclasses import fields

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from trl import SFTConfig

    from trainyard.trainer.models import known_names

    assert set(known_names.causal_language_models()) == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    # Names that only the constructor takes are no fields; every real field must be known.
    assert {f.name for f in fields(SFTConfig) if f.init} <= known_names.arguments_of("SFTConfig")
    for architecture in ("llama", "qwen3", "gemma3_text", "gpt2", "mistral", "smollm3", "olmo2", "phi3"):
        cls = CONFIG_MAPPING[architecture]
        known = known_names.configuration_fields(architecture)
        assert known == {f.name for f in fields(cls)} | set(cls.attribute_map), architecture
    for architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if known := known_names.configuration_fields(architecture):
            cls = CONFIG_MAPPING[architecture]
            assert {f.name for f in fields(cls)} | set(cls.attribute_map) <= known, architecture
