"""Axolotl's YAML."""

from collections.abc import Mapping
from typing import Any

from trainyard.cli.importing.reading import Reading, lora, names_of, number

METHODS = {"dpo": "DPO", "orpo": "ORPO", "kto": "KTO"}
ALPACA = {"prompt": "instruction", "completion": "output"}


def is_one(config: Mapping[str, Any]) -> bool:
    return "base_model" in config


def read(reading: Reading) -> None:
    method = METHODS.get(str(reading.take("rl") or ""), "SFT")
    reading.weights(reading.take("base_model"))
    adapter = reading.take("adapter")
    four_bit = bool(reading.take("load_in_4bit")) or adapter == "qlora"
    if adapter in ("lora", "qlora"):
        everything = reading.take("lora_target_linear")
        targets = reading.take("lora_target_modules")
        lora(reading, rank="lora_r", targets=None if everything else targets, four_bit=four_bit)
    elif adapter:
        reading.note(f"adapter: {adapter}  (LoRA is the only one here; all weights are trained as this stands)")
    if reading.take("load_in_8bit"):
        reading.note("load_in_8bit: true  (an adapter's base is kept in 4 bits, quantization NF4, or as it is)")
    entries = [_dataset(reading, entry, method) for entry in reading.take("datasets") or ()]
    held_out = [{**_dataset(reading, entry, method), "role": "Eval"} for entry in reading.take("test_datasets") or ()]
    _hold_out(reading, entries)
    names_of(entries + held_out)
    if entries and all(entry.get("format") == "Text" for entry in entries):
        method = "CPT"
    reading.put("datasets", entries + held_out or None)
    reading.put("training.method", method)
    reading.move("sequence_len", "training.maxLength", number)
    reading.move("sample_packing", "training.packing")
    reading.move("micro_batch_size", "training.perDeviceTrainBatchSize", number)
    reading.move("eval_batch_size", "training.perDeviceEvalBatchSize", number)
    reading.move("num_epochs", "training.numTrainEpochs", number)
    reading.move("optimizer", "training.optim")
    reading.hugging_face()
    reading.move("save_steps", "checkpoints.everySteps", number)
    reading.move("save_total_limit", "checkpoints.keepLast", number)
    for name in ("saves_per_epoch", "evals_per_epoch"):
        if value := reading.take(name):
            field = "checkpoints.everySteps" if name.startswith("saves") else "training.evalSteps"
            reading.note(f"{name}: {value}  (counted in steps here: {field})")
    _tracking(reading)
    if reading.take("train_on_inputs"):
        reading.note("train_on_inputs: true  (only answers are learnt of conversations; format Text learns all of it)")


def _hold_out(reading: Reading, entries: list[dict[str, Any]]) -> None:
    share = number(reading.take("val_set_size"))
    if not share:
        return
    if share < 1:
        for entry in entries:
            entry["split"] = {"eval": share}
    else:
        reading.note(f"val_set_size: {share}  (a share is held out here: split.eval below 1)")


def _dataset(reading: Reading, entry: Mapping[str, Any], method: str) -> dict[str, Any]:
    left = dict(entry)
    path, kind = str(left.pop("path", "")), left.pop("type", None)
    found: dict[str, Any] = {
        "name": path.rstrip("/").rpartition("/")[2].partition(".")[0],
        **reading.place(path, what="dataset"),
    }
    messages = left.pop("field_messages", None)
    if method in ("DPO", "ORPO"):
        found["format"] = "Preference"
    elif method == "KTO":
        found["format"] = "UnpairedPreference"
    elif kind == "completion":
        found["format"] = "Text"
        if (field := left.pop("field", None)) and field != "text":
            found["columns"] = {"text": field}
    elif kind == "alpaca" or str(kind).startswith("alpaca"):
        found |= {"format": "PromptCompletion", "columns": dict(ALPACA)}
        reading.note(
            f"dataset {path}, type {kind}: the field input of a record is not put into the prompt; join the two before"
        )
    else:
        found["format"] = "Messages"
        if messages and messages != "messages":
            found["columns"] = {"messages": messages}
        if kind not in (None, "chat_template"):
            reading.note(f"dataset {path}, type {kind}: read as Messages; trainyard validate --data checks the records")
    if (split := left.pop("split", None)) and split != "train":
        reading.note(f"dataset {path}, split {split}: name the file of that split in storageUri")
    for name, value in left.items():
        reading.note(f"dataset {path}, {name}: {value}  (no such field here)")
    return found


def _tracking(reading: Reading) -> None:
    address, experiment = reading.take("mlflow_tracking_uri"), reading.take("mlflow_experiment_name")
    if address:
        reading.put("tracking.mlflow.trackingUri", address)
        reading.put("tracking.mlflow.experiment", experiment)
    if reading.take("use_tensorboard"):
        reading.put("tracking.tensorboard", True)
    reading.take("use_mlflow", "use_wandb")
