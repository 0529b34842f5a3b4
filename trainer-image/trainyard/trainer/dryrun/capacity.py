"""Does it fit, how long does it take, what does it cost? Answered before an accelerator is asked for.

The time is arithmetic over what such a device reaches in practice (a third of its data sheet), so it is right to a factor
of about two. The memory is that of `estimate`.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

from trainyard.api.duration import duration
from trainyard.api.quantity import parse_quantity
from trainyard.api.run.estimate import ACCELERATORS
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.volume import space

ACHIEVED = 0.35
"""Share of the peak that training reaches."""
CPU_CORE = 2e10
"""Floating-point operations a second that one core achieves in FP32."""
SHORTEST_STEP = {"gpu": 0.03, "cpu": 0.02}
"""Seconds that a step takes whatever its size."""
OTHER_MEMORY = {"gpu": 1.0e9, "cpu": 0.8e9}
"""Bytes that libraries and buffers take beside the model."""


def accelerator_of(spec: TrainingRunSpec) -> str | None:
    """The GPU's name: as the spec says, or by the node label that it selects."""
    if spec.estimate is not None and spec.estimate.accelerator is not None:
        return str(spec.estimate.accelerator)
    words = str(spec.placement.node_selector.get("nvidia.com/gpu.product", "")).upper().replace(" ", "-").split("-")
    known = {*words, *(a + b for a, b in itertools.pairwise(words))}
    return next((name for name in ACCELERATORS if set(name.split("-")) <= known), None)


def describe_capacity(
    spec: TrainingRunSpec, model: dict[str, Any], training: dict[str, Any], tokens: int
) -> dict[str, Any]:
    """Device, memory, time and cost of the training step.

    Args:
        spec: the run's.
        model: `parameters`, `trainableParameters` and `estimatedMemoryBytes`.
        training: `steps` and `epochs`.
        tokens: tokens of one epoch.
    """
    devices = _devices(spec)
    name = accelerator_of(spec) if devices else None
    kind = "gpu" if devices else "cpu"
    needed = int(model["estimatedMemoryBytes"] + OTHER_MEMORY[kind])
    found: dict[str, Any] = {"device": name or (f"{devices} GPU" if devices else "CPU"), "memoryNeededBytes": needed}
    speed: float | None = None
    if name is not None:
        peak, memory = ACCELERATORS[name]
        speed = peak * 1e12 * ACHIEVED
        found["memoryBytes"] = int(memory * 1e9)
    elif devices:
        found["fitsOn"] = [one for one, (_, memory) in ACCELERATORS.items() if memory * 1e9 >= needed]
    else:
        # Without a limit a container takes what is idle, which is more than it asked for.
        limit_of_cores = spec.resources.limits.get("cpu")
        asked = float(parse_quantity(spec.resources.requests.get("cpu", 1)))
        cores = float(parse_quantity(limit_of_cores)) if limit_of_cores else max(1.0, asked)
        speed = cores * CPU_CORE
        limit = spec.resources.limits.get("memory")
        found |= {"cores": cores} | ({"memoryBytes": int(parse_quantity(limit))} if limit is not None else {})
    if "memoryBytes" in found:
        found["fits"] = needed <= found["memoryBytes"]
    if speed is not None:
        # Forward 2, backward 4 operations per parameter and token; an adapter saves the gradients of the frozen weights.
        adapted = model["trainableParameters"] < model["parameters"]
        work = (4.0 if adapted else 6.0) * model["parameters"] * tokens * training["epochs"]
        work *= 4 / 3 if spec.training is not None and spec.training.gradient_checkpointing else 1.0
        seconds = max(work / (speed * spec.world_size), training["steps"] * SHORTEST_STEP[kind])
        found["seconds"] = round(seconds)
        price = spec.estimate.price_per_hour if spec.estimate else None
        if price is not None:
            found["cost"] = round(price * seconds / 3600, 2)
    return found


def describe_outputs(folder: Path, spec: TrainingRunSpec, model: dict[str, Any], steps: int) -> dict[str, Any]:
    """Where results go, what they will take, and what is free."""
    trainable, whole = model["trainableParameters"], model["parameters"]
    adapted = trainable < whole
    need = space.needed(
        saved=4 * trainable,
        optimizer=model["optimizerBytes"] - 4 * trainable,
        result=4 * trainable if adapted else 4 * whole,
        saves=max(1, -(-steps // spec.checkpoints.every_steps)),
        keep_last=spec.checkpoints.keep_last,
        keeps_best=spec.checkpoints.keep_best,
    )
    free = shutil.disk_usage(folder).free
    paths = {"dataset": "dataset", "checkpoints": "checkpoints", "model": "adapter" if adapted else "model"}
    return {
        "paths": {name: str(folder / path) for name, path in paths.items()},
        "neededBytes": need.total,
        "freeBytes": free,
        "fits": need.total <= free,
    }


def capacity_lines(capacity: dict[str, Any], outputs: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"device: {capacity['device']}, needs about {capacity['memoryNeededBytes'] / 1e9:.1f} GB of memory"]
    if "memoryBytes" in capacity:
        lines[0] += f" of {capacity['memoryBytes'] / 1e9:.1f} GB" + ("" if capacity["fits"] else ": DOES NOT FIT")
    elif "fitsOn" in capacity:
        lines[0] += f"; fits on {', '.join(capacity['fitsOn']) or 'no single GPU'} (set spec.estimate.accelerator)"
    if "seconds" in capacity:
        cost = f", about {capacity['cost']:.2f} at the given price" if "cost" in capacity else ""
        lines.append(f"time: about {duration(capacity['seconds'])} of training, to a factor of two{cost}")
    fits = "" if outputs["fits"] else ": THE VOLUME IS TOO SMALL"
    lines.append(
        f"volume: {outputs['paths']['model']}, needs {outputs['neededBytes'] / 1e9:.2f} GB, {outputs['freeBytes'] / 1e9:.1f} GB "
        f"are free{fits}"
    )
    return lines


def _devices(spec: TrainingRunSpec) -> int:
    asked = {**spec.resources.requests, **spec.resources.limits}
    return sum(
        int(parse_quantity(value)) for name, value in asked.items() if "/gpu" in name or name.startswith("nvidia.com/")
    )
