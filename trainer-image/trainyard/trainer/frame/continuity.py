"""Whether a training may go on from a checkpoint: what the checkpoint was trained as, against what the spec asks for now.

Each checkpoint's manifest records the spec that it was made under. What decides over the meaning of the saved numbers (the
base, the adapter's shape, the method, the optimizer) has to be the same, and is refused by name where it is not. Everything
else acts from the first resumed step on, and is told with the old value and the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import say
from trainyard.trainer.volume import checkpoint
from trainyard.trainer.volume.checkpoint import Checkpoint
from trainyard.trainer.volume.commit import read_committed

RECORD = "trained"
"""Where the manifest of a checkpoint has it."""
ADAPTER = "spec.model.adapter"
LORA_OF_PEFT = {"rank": "r", "alpha": "lora_alpha"}
"""Of an adapter whose checkpoint has no record of ours, what its own configuration says."""
LATER: dict[str, Any] = {"dora": False, "rsLora": False, "initialisation": "Zero", "trainableTokens": []}
"""Fields that checkpoints of older trainers do not record, with the value that these had."""

Settings = Mapping[str, Any]


def record_of(context: RunContext) -> dict[str, Any]:
    """For the manifest of a checkpoint: fields with their values, those that have to stay and those that may change."""
    return {RECORD: {"fixed": fixed(context), "changeable": changeable(context)}}


def fixed(context: RunContext) -> dict[str, Any]:
    """What a checkpoint cannot go on without."""
    training, model = context.training, context.model
    values: dict[str, Any] = {
        "spec.training.method": training.method,
        # One algorithm with one state, computed in two ways.
        "spec.training.optim": training.optim.removesuffix("_fused"),
    }
    if model.storage_uri is not None and not _is_of_this_volume(context, model.storage_uri):
        values["spec.model.storageUri"] = model.storage_uri.removesuffix("@main")
    if model.scratch is not None:
        values["spec.model.scratch.architecture"] = model.scratch.architecture
        values |= {f"spec.model.scratch.config.{name}": value for name, value in model.scratch.config.items()}
    if model.trm is not None:
        values |= {f"spec.model.trm.{name}": value for name, value in _dumped(model.trm).items()}
    values[ADAPTER] = "none" if model.adapter is None else "lora"
    if model.adapter is not None:
        lora = _dumped(model.adapter.lora)
        lora["targetModules"] = sorted(lora["targetModules"])
        lora = {name: value for name, value in lora.items() if name not in LATER or value != LATER[name]}
        if model.adapter.from_ is not None:
            values[f"{ADAPTER}.from"] = model.adapter.from_
        values |= {f"{ADAPTER}.lora.{name}": value for name, value in lora.items()}
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def changeable(context: RunContext) -> dict[str, Any]:
    """What acts from the first resumed step on."""
    spec = context.run.spec
    training = _dumped(context.training)
    for name in ("method", "optim"):
        training.pop(name, None)
    extra = {f"spec.training.extraArgs.{name}": value for name, value in training.pop("extraArgs", {}).items()}
    values = {f"spec.training.{name}": value for name, value in training.items()} | extra
    values |= {f"spec.checkpoints.{name}": value for name, value in _dumped(spec.checkpoints).items()}
    values.pop("spec.checkpoints.resumeFrom", None)
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def check_resumable(context: RunContext, found: Checkpoint) -> None:
    """Compare the checkpoint with the spec, and say which settings are new.

    Raises:
        UserError: it was trained as something else.
    """
    then = _recorded(found.path)
    now = {"fixed": fixed(context), "changeable": changeable(context)}
    if not then:
        then = {"fixed": _read_from_files(found.path)}
        now["fixed"] = {name: value for name, value in now["fixed"].items() if name in then["fixed"]}
    differences = _differences(then.get("fixed", {}), now["fixed"])
    if any(line.startswith(f"{ADAPTER} ") for line in differences):
        differences = [line for line in differences if not line.startswith(f"{ADAPTER}.")]
    if differences:
        own = found.path.parent == context.checkpoint_dir
        place = found.path.name if own else f"{found.path.relative_to(context.volume)} (spec.checkpoints.resumeFrom)"
        fresh = (
            "train under another metadata.name"
            if own
            else "remove spec.checkpoints.resumeFrom and start from that run's result (spec.model.storageUri)"
        )
        raise invalid_config(
            f"checkpoint {place} cannot be gone on from: " + "; ".join(differences),
            hint=f"set back what is named to go on from it; to train it the new way, {fresh}",
        )
    # Where memory ran out it is not the spec that has changed.
    if changed := _differences(then.get("changeable", now["changeable"]), now["changeable"], verb="is now"):
        say(f"changed since {found.path.name}, and in force from step {found.step + 1} on: {'; '.join(changed)}")


def check_reference(context: RunContext) -> None:
    """Ask before anything is fetched whether `spec.checkpoints.resumeFrom` is of this kind of training. A run that has not
    saved anything yet may have done so when the training begins.

    Raises:
        UserError: it is of another kind, or no place on the volume.
    """
    reference = context.run.spec.checkpoints.resume_from
    if not reference or checkpoint.listed(context.checkpoint_dir) or not context.volume.is_dir():
        return
    inside = str(context.work_dir.relative_to(context.run_dir))
    found = checkpoint.seek_other(reference, volume=context.volume, own=context.run_dir, inside=inside)
    if found is not None:
        check_resumable(context, found)


def _differences(then: Settings, now: Settings, *, verb: str = "the spec says") -> list[str]:
    """Each as a sentence, in the order of the spec."""
    names = [*now, *(name for name in then if name not in now)]
    return [
        f"{name} was {_shown(then.get(name))}, {verb} {_shown(now.get(name))}"
        for name in names
        if then.get(name) != now.get(name)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value)


def _dumped(model: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return {name: value for name, value in dumped.items() if value is not None}


def _is_of_this_volume(context: RunContext, uri: str) -> bool:
    """Whether it is the result of a phase before, which lies in the run's own folder and so has another name in each run."""
    return uri.startswith(f"file://{context.volume}/")


def _recorded(folder: Path) -> dict[str, Any]:
    committed = read_committed(folder)
    found = committed.manifest.get(RECORD) if committed else None
    return found if isinstance(found, dict) else {}


def _read_from_files(folder: Path) -> dict[str, Any]:
    """Of a checkpoint that an older trainer has written."""
    file = folder / "adapter_config.json"
    if not file.exists():
        return {ADAPTER: "none"}
    said = json.loads(file.read_text())
    return {ADAPTER: "lora"} | {f"{ADAPTER}.lora.{ours}": said.get(name) for ours, name in LORA_OF_PEFT.items()}
