"""LLaMA-Factory's YAML."""

from collections.abc import Mapping
from typing import Any

from trainyard.cli.exits import Refused
from trainyard.cli.importing.reading import Reading, lora, names_of, number

STAGES = {"pt": "CPT", "sft": "SFT", "rm": "RewardModel", "dpo": "DPO", "kto": "KTO", "ppo": "PPO"}
FORMATS = {
    "CPT": "Text",
    "SFT": "Messages",
    "RewardModel": "Preference",
    "DPO": "Preference",
    "ORPO": "Preference",
    "KTO": "UnpairedPreference",
    "PPO": "Prompt",
}


def is_one(config: Mapping[str, Any]) -> bool:
    return "model_name_or_path" in config or "finetuning_type" in config


def read(reading: Reading) -> None:
    """Raises Refused for a stage that cannot be trained here."""
    stage = str(reading.take("stage") or "sft")
    if stage not in STAGES:
        raise Refused(
            f"stage {stage} cannot be trained here: there are {', '.join(STAGES)}, and dpo with pref_loss orpo"
        )
    method = "ORPO" if reading.take("pref_loss") == "orpo" and stage == "dpo" else STAGES[stage]
    if method == "PPO":
        reading.note("stage ppo: what a response is rewarded for has to be given in training.rewards")
    reading.put("training.method", method)
    reading.weights(reading.take("model_name_or_path"))
    kind, bits = str(reading.take("finetuning_type") or "lora"), reading.take("quantization_bit")
    if kind == "lora":
        lora(reading, rank="lora_rank", targets=reading.take("lora_target"), four_bit=bits == 4)
    elif kind != "full":
        reading.note(f"finetuning_type: {kind}  (lora or full here; all weights are trained as this stands)")
    if bits not in (None, 4):
        reading.note(f"quantization_bit: {bits}  (4, quantization NF4, is the only one here)")
    _datasets(reading, method)
    reading.move("cutoff_len", "training.maxLength", number)
    reading.move("packing", "training.packing")
    reading.move("pref_beta", "training.extraArgs.beta", number)
    reading.move("optim", "training.optim")
    reading.hugging_face()
    reading.move("save_steps", "checkpoints.everySteps", number)
    reading.move("save_total_limit", "checkpoints.keepLast", number)
    told = reading.take("report_to")
    wanted = told if isinstance(told, list) else [told]
    if "tensorboard" in wanted:
        reading.put("tracking.tensorboard", True)
    for name in wanted:
        if name not in (None, "none", "tensorboard"):
            reading.note(f"report_to: {name}  (give spec.tracking.mlflow.trackingUri for MLflow; there is no other)")
    for name in ("do_train", "do_eval", "eval_strategy", "save_strategy"):
        reading.take(name)


def _datasets(reading: Reading, method: str) -> None:
    folder = str(reading.take("dataset_dir") or "data").strip("/.")
    limit, share = reading.take("max_samples"), number(reading.take("val_size"))
    entries: list[dict[str, Any]] = []
    for role, key in (("Train", "dataset"), ("Eval", "eval_dataset")):
        named = reading.take(key)
        names = named if isinstance(named, list) else str(named or "").split(",")
        for name in (str(n).strip() for n in names if n):
            entry: dict[str, Any] = {"name": name, "storageUri": f"pvc://{reading.claim}/{folder}/{name}.jsonl"}
            entry |= {"format": FORMATS[method]} | ({"role": role} if role == "Eval" else {})
            entry |= {"limit": limit} if limit and role == "Train" else {}
            if share and 0 < share < 1 and role == "Train":
                entry["split"] = {"eval": share}
            entries.append(entry)
            reading.note(
                f"dataset {name}: an entry of dataset_info.json; give its file as storageUri, and check its format"
            )
    names_of(entries)
    reading.put("datasets", entries or None)
