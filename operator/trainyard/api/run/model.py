"""`spec.model`: what is trained, from where, and whether through an adapter."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from trainyard.api.addresses import FolderUri, ModelUri
from trainyard.api.base import ApiModel, Rule, SecretRef, exactly_one, opaque
from trainyard.api.run.trm import Trm


class Tokenizer(ApiModel):
    """The tokenizer of a model built from scratch: trained on the run's own data, or taken from somewhere."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "train_vocab_size",
            "storage_uri",
            message="a scratch model's tokenizer needs exactly one of trainVocabSize (train one on the data) and "
            "storageUri (take an existing one)",
        ),
    )

    train_vocab_size: int | None = Field(
        None,
        ge=300,
        le=262144,
        description="Train a byte-level BPE tokenizer with this many entries on the training data.",
    )
    storage_uri: FolderUri | None = Field(
        None,
        description="Existing tokenizer: hf://org/name[@revision], pvc://claim/path or file:///path in the image.",
    )


class Scratch(ApiModel):
    """A model with random weights."""

    architecture: str = Field(
        max_length=63,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Hugging Face model type, for example llama, qwen3 or gpt2.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of that type's configuration class (hidden_size, num_hidden_layers, ...). Unknown names are "
        "refused. vocab_size is taken from the tokenizer.",
        json_schema_extra=opaque,
    )
    tokenizer: Tokenizer = Field(description="Where the tokenizer comes from.")


class Lora(ApiModel):
    """Low-rank adapter; the base weights stay frozen."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.targetModules) || size(self.targetModules) == 1 || !('all-linear' in self.targetModules)",
            "lora.targetModules: all-linear stands for every linear layer: remove the other names, or it",
            lambda lora: len(lora.target_modules) == 1 or "all-linear" not in lora.target_modules,
        ),
        Rule(
            "!has(self.dora) || !self.dora || self.initialisation == 'Zero'",
            "lora.dora starts from the base's own weights, which initialisation PiSSA changes: remove one of them",
            lambda lora: not lora.dora or lora.initialisation == "Zero",
        ),
    )

    rank: int = Field(16, ge=1, le=1024, description="Rank of the update matrices.")
    alpha: float = Field(32, gt=0, le=4096, description="Scale: the update is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: list[str] = Field(
        default_factory=lambda: ["all-linear"],
        min_length=1,
        max_length=64,
        description="Names of the modules that get an adapter; all-linear means every linear layer but the output head.",
        json_schema_extra={"items": {"type": "string", "maxLength": 128, "minLength": 1}},
    )
    dora: bool = Field(
        False, description="DoRA: the length of each output's weights is trained apart from their direction. Slower."
    )
    rs_lora: bool = Field(
        False, description="Rank-stabilised: the update is multiplied by alpha / sqrt(rank) instead of alpha / rank."
    )
    lora_plus_ratio: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="LoRA+: the learning rate of the matrix B, which starts at zero, is so many times that of A; 16 is usual.",
    )
    initialisation: Literal["Zero", "PiSSA"] = Field(
        "Zero",
        description="Zero: A is random and B zero. PiSSA: both come from the largest singular values of the base's weights, and "
        "the base keeps the rest; the model answers as before either way.",
    )
    trainable_tokens: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="Tokens of the tokenizer, by their text, whose embeddings are trained beside the adapter, for example new "
        "special tokens.",
        json_schema_extra={"items": {"type": "string", "maxLength": 128, "minLength": 1}},
    )
    layers: int | None = Field(
        None, ge=1, le=1000, description="Only the last so many layers of the model get an adapter; absent means all."
    )


class Adapter(ApiModel):
    """Train an adapter instead of all weights."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.quantization) || self.lora.initialisation == 'Zero'",
            "lora.initialisation PiSSA takes the base's weights apart, which are packed with quantization NF4: remove one of them",
            lambda adapter: adapter.quantization is None or adapter.lora.initialisation == "Zero",
        ),
    )

    lora: Lora = Field(description="Low-rank adaptation.")
    from_: FolderUri | None = Field(
        None,
        alias="from",
        description="Go on with an adapter that was trained over the same base: a folder with adapter_config.json at "
        "hf://org/name[@revision], pvc://claim/path or file:///path in the image. Its rank, alpha and layers are its own; of lora "
        "only dropout and loraPlusRatio may be given. The Secret of spec.model is used for it too.",
    )
    quantization: Literal["NF4"] | None = Field(
        None,
        description="NF4: the frozen base lies in the GPU's memory with 4 bits a weight, a quarter of BF16. Needs a GPU and "
        "bitsandbytes in the image. The result is the adapter on the base's own weights, as without.",
    )
    merge: bool = Field(
        True, description="Merge the adapter into the base model at the end, so that model/ can be loaded by itself."
    )


class ModelSource(ApiModel):
    """What is trained."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "storage_uri",
            "scratch",
            "trm",
            message="spec.model needs exactly one of storageUri (start from existing weights), scratch (start from "
            "random ones) and trm (a Tiny Recursive Model); keep one of them",
        ),
        Rule(
            "!has(self.adapter) || has(self.storageUri)",
            "an adapter needs existing weights under it: give spec.model.storageUri, or remove spec.model.adapter",
            lambda m: m.adapter is None or m.storage_uri is not None,
        ),
    )

    storage_uri: ModelUri | None = Field(
        None,
        description="Weights to start from: hf://org/name[@revision], a folder at pvc://claim/path, file:///path in the image, "
        "s3://bucket/prefix or https:// (a folder, or a .tar or .tar.gz of one), run://name[/phase] for the result of another "
        "run on the same checkpoint volume; or, at any of these but the last, a file that ends in .gguf "
        "(hf://org/name[@revision]/file.gguf), which is unpacked once.",
    )
    scratch: Scratch | None = Field(None, description="Start from random weights with this configuration.")
    trm: Trm | None = Field(None, description="A Tiny Recursive Model, for method TRM.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret to fetch it with: key token (or HF_TOKEN) for the hub; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL and AWS_REGION for s3; token, or username and password, for https; ca.crt for either.",
    )
    adapter: Adapter | None = Field(None, description="Train an adapter; absent means all weights are trained.")
