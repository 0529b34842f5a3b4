"""The model to train or to measure, in the right type, on the right device.

Which type the weights have decides over memory and over whether small updates survive:

* an adapter's frozen base is loaded in the type that is computed in, or in NF4, the adapter itself stays in FP32;
* a model that is trained as a whole keeps FP32 weights and computes under autocast, because an update of 1e-5 to a weight
  of 1 is lost in BF16; only where 16 bytes per parameter do not fit onto the device, it is BF16 throughout;
* on the CPU without fast BF16 everything is FP32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.api.run.methods import METHODS
from trainyard.api.run.reward import RewardModel
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.device import Device
from trainyard.trainer.models.attention import Attention, attention_of, check_attention
from trainyard.trainer.models.finite import refuse_broken_weights
from trainyard.trainer.models.fit import TELL, loaded, refuse_misfit
from trainyard.trainer.models.fp8 import as_if_never_packed, unpacking
from trainyard.trainer.models.handover import try_to_save
from trainyard.trainer.models.lora import add_adapter, continued, load_adapter
from trainyard.trainer.models.output_head import add_output_head
from trainyard.trainer.models.quantize import nf4
from trainyard.trainer.models.quick import quicken
from trainyard.trainer.models.scratch import build_config
from trainyard.trainer.volume.bases import Address, base_folder, model_folder
from trainyard.trainer.volume.origin import local_folder, revision_of

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FULL_TRAINING_BYTES = 16
"""Bytes per parameter: FP32 weight and gradient and Adam's two moments."""
DEVICE_SHARE = 0.8
"""Of the device's memory, that weights and optimizer may take; the rest is for activations."""


@dataclass(frozen=True)
class Loaded:
    """A model and what should be known about it."""

    model: PreTrainedModel | PeftModel
    parameters: int
    trainable: int
    revision: str | None
    source_dtype: torch.dtype | None
    """Type of the weights where they came from; what is trained is exported in it. None for random weights."""


def load_for_training(
    context: RunContext, device: Device, tokenizer: PreTrainedTokenizerFast, *, vocab_size: int, resume: Path | None
) -> Loaded:
    """The model at the start of training, or as it was in the checkpoint `resume`.

    Raises:
        UserError: the source is missing or does not fit the spec.
    """
    import torch
    from transformers import set_seed

    set_seed(context.training.seed)
    spec, attention = context.model, context.training.attention
    check_attention(context.training, device)
    max_length = context.positions
    if spec.scratch is not None:
        if resume is not None:
            model = _from_folder(resume, torch.float32, uri=f"checkpoint {resume.name}", attention=attention)
        else:
            config = build_config(spec.scratch, vocab_size=vocab_size, max_length=max_length, tokenizer=tokenizer)
            model = _from_config(config, attention)
        return _loaded(model, device, revision=None, source_dtype=None)

    assert spec.storage_uri is not None
    folder = base_folder(context)
    source_dtype = dtype_of(folder)
    head = _head_of(context, tokenizer)
    if spec.adapter is not None:
        quantization = nf4(device) if spec.adapter.quantization else None
        base = _from_folder(
            folder,
            device.compute_dtype,
            uri=spec.storage_uri,
            quantization=quantization,
            head=head,
            attention=attention,
        )
        _check_fit(base, vocab_size, max_length)
        refuse_broken_weights(base, spec.storage_uri)
        if spec.adapter.merge and quantization is None:
            try_to_save(base, spec.storage_uri)
        adapted = (
            load_adapter(base, resume, trainable=True)
            if resume
            else _first_adapter(context, base, tokenizer, scores=head is not None)
        )
        return _loaded(adapted, device, revision=revision_of(folder), source_dtype=source_dtype)
    dtype = _master_dtype(folder, device)
    model = _from_folder(resume or folder, dtype, uri=spec.storage_uri, head=head, attention=attention)
    _check_fit(model, vocab_size, max_length)
    if resume is None:
        refuse_broken_weights(model, spec.storage_uri)
    try_to_save(model, spec.storage_uri)
    return _loaded(model, device, revision=revision_of(folder), source_dtype=source_dtype)


def _first_adapter(context: RunContext, base: Any, tokenizer: Any, *, scores: bool) -> PeftModel:
    """A new one, or the one that the spec names."""
    adapter = context.model.adapter
    assert adapter is not None
    if adapter.from_ is None:
        return add_adapter(base, adapter.lora, tokenizer=tokenizer, scores=scores)
    return continued(base, adapter_folder(context), adapter.lora, uri=adapter.from_)


def adapter_folder(context: RunContext) -> Path:
    """The folder of the adapter that is gone on with."""
    adapter = context.model.adapter
    assert adapter is not None
    assert adapter.from_ is not None
    return local_folder(adapter.from_, context=context, secret_ref=context.model.secret_ref, weights=True)


def load_reward_model(context: RunContext, device: Device, spec: RewardModel, *, field: str) -> tuple[Any, Any]:
    """A sequence-classification model with one output, and its tokenizer.

    Raises:
        UserError: it is none, or has several outputs.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = model_folder(Address(spec.storage_uri, spec.secret_ref, field=field), context)
    told = f"{field}.storageUri {spec.storage_uri}"

    def load() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=device.compute_dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **TELL,
        )

    model, noticed = loaded(load, told, what="reward")
    refuse_misfit(noticed, told)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise invalid_config(
            f"{field}.storageUri {spec.storage_uri} cannot be loaded as a reward model: {first_line(error)}",
            hint="it has to be a sequence-classification model saved with save_pretrained, with its tokenizer",
        ) from error
    if model.config.num_labels != 1:
        raise invalid_config(
            f"{field}.storageUri {spec.storage_uri} has {model.config.num_labels} outputs, a reward model has one",
            hint="use a model trained to score (num_labels 1)",
        )
    return model.to(device.kind).eval().requires_grad_(False), tokenizer


def load_for_evaluation(context: RunContext, device: Device) -> PreTrainedModel | PeftModel:
    """The run's result: the final model, or its base with the adapter where it was not merged. Ready for `measure`."""
    if context.model_dir.is_dir():
        head = Head(None) if METHODS[context.training.method].makes_scores else None
        model: Any = _from_folder(
            context.model_dir,
            device.compute_dtype,
            uri="the trained model",
            head=head,
            attention=context.training.attention,
        )
        if head is None:
            add_output_head(model)
    else:
        spec = context.model
        assert spec.storage_uri is not None
        folder = base_folder(context)
        base = _from_folder(folder, device.compute_dtype, uri=spec.storage_uri, attention=context.training.attention)
        add_output_head(base)
        model = load_adapter(base, context.adapter_dir, trainable=False)
    return _ready(model, device)


def _ready(model: Any, device: Device) -> Any:
    """To be measured on the device."""
    if device.kind == "cpu":
        quicken(model)
    return model.to(device.kind).eval()


def load_other(folder: Path, device: Device, *, told: str) -> PreTrainedModel:
    """A whole model from somewhere else, to be measured beside the result. Frozen.

    Raises:
        UserError: it is none.
    """
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise invalid_config(
            f"{told} is an adapter alone",
            hint="merge it into its base (spec.model.adapter.merge: true) and name the result",
        )
    model: Any = _from_folder(folder, device.compute_dtype, uri=told)
    add_output_head(model)
    other: PreTrainedModel = _ready(model, device).requires_grad_(False)
    return other


def merge_into_source(context: RunContext) -> PreTrainedModel:
    """The committed adapter in the source's own weights and their own type, in host memory: a base that was packed for the
    training has lost what the merged model should have."""
    import torch

    spec = context.model
    assert spec.storage_uri is not None
    folder = base_folder(context)
    head = Head(None) if METHODS[context.training.method].makes_scores else None
    base = _from_folder(folder, dtype_of(folder) or torch.float32, uri=spec.storage_uri, head=head)
    merged: PreTrainedModel = load_adapter(base, context.adapter_dir, trainable=False).merge_and_unload(safe_merge=True)
    return merged


def load_untrained(
    context: RunContext,
    device: Device,
    tokenizer: PreTrainedTokenizerFast,
    *,
    vocab_size: int,
    as_trained: bool = False,
    quantized: bool = False,
) -> PreTrainedModel:
    """The model as it was before the training: the source's weights, or the random ones of the same seed. Frozen, and the
    same to the bit at every call; with `as_trained` in the type that it is trained in, else in the one that is computed in;
    `quantized` packs it as spec.model.adapter asks."""
    from transformers import set_seed

    spec = context.model
    if spec.scratch is not None:
        set_seed(context.training.seed)
        model: Any = _from_config(
            build_config(spec.scratch, vocab_size=vocab_size, max_length=context.positions, tokenizer=tokenizer),
            context.training.attention,
        )
        model = model if as_trained else model.to(device.compute_dtype)
    else:
        assert spec.storage_uri is not None
        folder = base_folder(context)
        dtype = _master_dtype(folder, device) if as_trained and spec.adapter is None else device.compute_dtype
        quantization = nf4(device) if quantized else None
        head = _head_of(context, tokenizer)
        set_seed(context.training.seed)
        attention = context.training.attention
        model = _from_folder(
            folder, dtype, uri=spec.storage_uri, quantization=quantization, head=head, attention=attention
        )
        if head is None:
            add_output_head(model)
        if spec.adapter is not None and spec.adapter.from_ is not None:
            model = load_adapter(model, adapter_folder(context), trainable=False)
        before: PreTrainedModel = _ready(model, device).requires_grad_(False)
        return before
    add_output_head(model)
    untrained: PreTrainedModel = _ready(model, device).requires_grad_(False)
    return untrained


def dtype_of(folder: Path) -> torch.dtype | None:
    """The type of the stored weights, from the header of the first safetensors file."""
    import torch
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is not a dict
                kind = tensors.get_slice(name).get_dtype()
                return {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}.get(kind)
    return None


def bytes_of_weights(folder: Path) -> int:
    """Size of the stored weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _from_config(config: Any, attention: Attention) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, **attention_of(attention)
        )
    except (TypeError, ValueError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise invalid_config(
            f"spec.model.scratch.config does not make a model: {first_line(error)}",
            hint="check the sizes against each other (heads have to divide hidden_size)",
        ) from error
    return model


@dataclass(frozen=True)
class Head:
    """A head that scores, in the place of one that writes."""

    padding_id: int | None
    """Token that stands behind the scored text in a batch; None where the text's own end is the same token, and cannot be
    told from it: the model then takes one text at a time."""


def _head_of(context: RunContext, tokenizer: PreTrainedTokenizerFast) -> Head | None:
    if not METHODS[context.training.method].makes_scores:
        return None
    padding = tokenizer.pad_token_id
    return Head(padding if padding != tokenizer.eos_token_id else None)


def _from_folder(
    folder: Path,
    dtype: torch.dtype,
    *,
    uri: str,
    quantization: Any = None,
    head: Head | None = None,
    attention: Attention = "Auto",
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if not any(folder.glob("*.safetensors")):
        raise invalid_config(
            f"{uri} has no weights as safetensors",
            hint="convert it with model.save_pretrained(folder); files that have to be unpickled are not loaded",
        )
    kind: Any = AutoModelForCausalLM if head is None else AutoModelForSequenceClassification
    unpacked: dict[str, Any] = {}

    def load() -> Any:
        unpacked.update(unpacking(folder))
        return kind.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            **unpacked,
            **({"quantization_config": quantization} if quantization is not None else {}),
            **({"num_labels": 1} if head is not None else {}),
            **TELL,
            **attention_of(attention),
        )

    model, noticed = loaded(load, uri, what="causal language" if head is None else "reward")
    if not unpacked:
        refuse_misfit(noticed, uri, new_head=head is not None)
    if head is not None:
        if not hasattr(model, "score"):
            raise invalid_config(
                f"{uri} is of kind {model.config.model_type}, which has the head that scores in another place",
                hint="use another base for method RewardModel, for example of kind llama or qwen3",
            )
        if head.padding_id is not None:
            model.config.pad_token_id = head.padding_id
    if unpacked:
        as_if_never_packed(model, dtype)
    made: PreTrainedModel = model
    return made


def _master_dtype(folder: Path, device: Device) -> torch.dtype:
    """FP32 weights where they fit, see above."""
    import torch

    if device.kind == "cpu" or device.precision != "BF16":
        return torch.float32
    stored = dtype_of(folder)
    width = 4 if stored == torch.float32 else 2
    needed = bytes_of_weights(folder) / width * FULL_TRAINING_BYTES
    if device.memory is not None and needed > DEVICE_SHARE * device.memory:
        warn(
            f"FP32 weights with their optimizer take {needed / 1e9:.0f} GB, more than {device.name} has: training in BF16 "
            "throughout, where very small updates are lost; an adapter (spec.model.adapter) would avoid that"
        )
        return torch.bfloat16
    return torch.float32


def _check_fit(model: PreTrainedModel, vocab_size: int, max_length: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if vocab_size > rows:
        raise invalid_config(
            f"the tokenizer has {vocab_size} entries, the model only {rows} embeddings",
            hint="tokenizer and weights are not of the same model",
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions < max_length:
        raise invalid_config(
            f"spec.training.maxLength {max_length} is more than the {positions} positions of the model",
            hint=f"lower maxLength to {positions} or less",
        )


def _loaded(model: Any, device: Device, *, revision: str | None, source_dtype: torch.dtype | None) -> Loaded:
    parameters = model.num_parameters()  # which knows packed ones
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.config.use_cache = False
    if device.kind == "cpu":
        quicken(model)
    share = "" if trainable == parameters else f", {trainable:,} of them trained ({trainable / parameters:.2%})"
    packed = ", linear layers in NF4" if getattr(model, "is_loaded_in_4bit", False) else ""
    say(
        f"model: {model.config.model_type}, {parameters:,} parameters{share}, weights in {str(model.dtype)[6:]}{packed}"
    )
    return Loaded(model, parameters, trainable, revision, source_dtype)
