"""Taking a configuration apart key by key, so that nothing in it is passed over in silence.

What has been taken is gone from the rest; what is left at the end is told, with a reason where one is known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainyard.api.run.training import SCHEDULERS

HUGGING_FACE = {
    "learning_rate": "learningRate",
    "num_train_epochs": "numTrainEpochs",
    "max_steps": "maxSteps",
    "per_device_train_batch_size": "perDeviceTrainBatchSize",
    "per_device_eval_batch_size": "perDeviceEvalBatchSize",
    "gradient_accumulation_steps": "gradientAccumulationSteps",
    "weight_decay": "weightDecay",
    "max_grad_norm": "maxGradNorm",
    "logging_steps": "loggingSteps",
    "eval_steps": "evalSteps",
    "gradient_checkpointing": "gradientCheckpointing",
    "seed": "seed",
}
"""Names of transformers' TrainingArguments, which most trainers share, and their fields here."""
ELSEWHERE = {
    "output_dir": "results lie on the run's volume: trainyard download fetches them",
    "run_name": "the run is called by metadata.name",
    "overwrite_output_dir": "each run has a folder of its own",
    "resume_from_checkpoint": "a restart resumes by itself; another run's checkpoint is spec.checkpoints.resumeFrom",
    "deepspeed": "several devices train data parallel: numNodes, numProcPerNode",
    "fsdp": "several devices train data parallel: numNodes, numProcPerNode",
    "ddp_timeout": "not needed here",
    "wandb": "there is tracking.mlflow and tracking.tensorboard",
    "hub_model_id": "push the result with an export to a hub",
    "push_to_hub": "push the result with an export to a hub",
    "flash_attention": "the fastest attention that fits is taken",
    "flash_attn": "the fastest attention that fits is taken",
    "attn_implementation": "the fastest attention that fits is taken",
    "tf32": "the precision is chosen by training.precision",
    "chat_template": "the template is that of the model",
    "template": "the template is that of the model",
    "special_tokens": "the tokenizer is that of the model",
    "tokenizer_type": "found by itself",
    "model_type": "found by itself",
    "trust_remote_code": "code from a hub is never run",
    "plot_loss": "the numbers are in status, metrics and tracking",
    "preprocessing_num_workers": "the prepare step has its own processes",
    "dataloader_num_workers": "the data are mapped into memory",
    "dataset_prepared_path": "prepared data are kept on the run's volume",
    "strict": "unknown fields are always refused",
}


class Reading:
    """A configuration that is being taken apart, and the spec that is made of it."""

    def __init__(self, config: Mapping[str, Any], *, claim: str) -> None:
        self._left = dict(_flat(config))
        self.claim = claim
        self.spec: dict[str, Any] = {}
        self.notes: list[str] = []

    def take(self, *names: str) -> Any:
        """The value of the first name that is there; all of them are then done with."""
        found = [self._left.pop(name) for name in names if name in self._left]
        return next((value for value in found if value is not None), None)

    def put(self, path: str, value: Any) -> None:
        """`training.maxSteps` of the spec; nothing is put where there is no value."""
        if value is None:
            return
        *keys, last = path.split(".")
        into = self.spec
        for key in keys:
            into = into.setdefault(key, {})
        into[last] = value

    def move(self, name: str, path: str, convert: Callable[[Any], Any] = lambda value: value) -> None:
        value = self.take(name)
        if value is not None:
            self.put(path, convert(value))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def hugging_face(self, prefix: str = "") -> None:
        """What most trainers call alike."""
        for name, field in HUGGING_FACE.items():
            self.move(prefix + name, f"training.{field}", number)
        self.warm_up(prefix)
        scheduler = self.take(f"{prefix}lr_scheduler_type", f"{prefix}lr_scheduler")
        if scheduler in SCHEDULERS:
            self.put("training.lrSchedulerType", scheduler)
        elif scheduler is not None:
            self.note(f"lr_scheduler {scheduler}: not one of {', '.join(SCHEDULERS)}; linear is taken")
        self._one_length()
        half, brain = self.take(f"{prefix}fp16"), self.take(f"{prefix}bf16")
        if brain is True:
            self.put("training.precision", "BF16")
        elif half is True:
            self.put("training.precision", "FP16")

    def _one_length(self) -> None:
        training = self.spec.setdefault("training", {})
        if training.get("maxSteps", 0) <= 0:
            training.pop("maxSteps", None)
        elif (epochs := training.pop("numTrainEpochs", None)) is not None:
            self.note(f"num_epochs: {epochs}  (max_steps is given too, and wins)")

    def warm_up(self, prefix: str) -> None:
        """Steps win over a share, as they do in transformers."""
        steps, share = self.take(f"{prefix}warmup_steps"), self.take(f"{prefix}warmup_ratio")
        self.put("training.warmupSteps", number(steps or share) if steps or share else None)

    def weights(self, name: str | None) -> None:
        """Where the model comes from."""
        if not name:
            self.note("no base model: give spec.model.storageUri")
        elif name.startswith((".", "/", "~")):
            self.put("model.storageUri", f"pvc://{self.claim}/{name.lstrip('./~')}")
            self.note(
                f"base model {name}: a folder of that machine; copy it to claim {self.claim}, or give hf://owner/name"
            )
        else:
            self.put("model.storageUri", f"hf://{name}")

    def place(self, path: str, *, what: str) -> dict[str, Any]:
        """Where a dataset comes from, as fields of an entry of spec.datasets."""
        if "://" in path:
            return {"storageUri": path}
        if (
            path.startswith((".", "/", "~"))
            or path.endswith((".json", ".jsonl", ".csv", ".parquet", ".txt"))
            or path.count("/") != 1
        ):
            self.note(f"{what} {path}: lies on another machine; copy it to claim {self.claim}, or change storageUri")
            return {"storageUri": f"pvc://{self.claim}/{path.lstrip('./~')}"}
        return {"storageUri": f"hf://{path}"}

    def rest(self) -> list[str]:
        """What has not been taken, each with its value and where it belongs."""
        lines = []
        for name, value in self._left.items():
            if value is None or value is False or value == "":
                continue
            last = name.rpartition(".")[2]
            why = next(
                (why for key, why in ELSEWHERE.items() if last == key or last.startswith(f"{key}_")),
                "no such field here",
            )
            lines.append(f"{name}: {_short(value)}  ({why})")
        return lines


def number(value: Any) -> Any:
    """PyYAML takes 2e-5 for a text."""
    if not isinstance(value, str):
        return value
    try:
        found = float(value)
    except ValueError:
        return value
    return int(found) if found.is_integer() and "e" not in value.lower() and "." not in value else found


def lora(reading: Reading, *, rank: str, targets: Any, four_bit: bool) -> None:
    """An adapter, from the names that all of them have."""
    reading.put("model.adapter.lora", {})
    reading.move(rank, "model.adapter.lora.rank")
    reading.move("lora_alpha", "model.adapter.lora.alpha")
    reading.move("lora_dropout", "model.adapter.lora.dropout")
    names = targets.split(",") if isinstance(targets, str) else list(targets or ())
    names = [str(name).strip() for name in names]
    if names and names not in (["all"], ["all-linear"]):
        reading.put("model.adapter.lora.targetModules", names)
    if four_bit:
        reading.put("model.adapter.quantization", "NF4")


def names_of(entries: Sequence[dict[str, Any]]) -> None:
    """Give each dataset a name of its own, after where it comes from."""
    seen: set[str] = set()
    for place, entry in enumerate(entries, start=1):
        base = "".join(c if c.isalnum() else "-" for c in str(entry["name"]).lower()).strip("-")[:50] or "data"
        name = base if base not in seen else f"{base}-{place}"
        seen.add(name)
        entry["name"] = name


def _flat(value: Mapping[str, Any], at: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, entry in value.items():
        name = f"{at}{key}"
        found += _flat(entry, f"{name}.") if isinstance(entry, Mapping) else [(name, entry)]
    return found


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
