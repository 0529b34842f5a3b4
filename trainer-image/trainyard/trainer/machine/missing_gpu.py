"""A GPU that the run asks for and this process does not see: why, and what to do. Never trained on the CPU in silence.

A device plugin may give a container the device and no driver, an image may hold a torch without CUDA, a variable may hide the
device. Each looks the same to torch, so what can be looked at is looked at here, and told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from trainyard.api.names import ENV_SIMULATED_DEVICE_MEMORY, ENV_SIMULATED_GPU
from trainyard.api.run.pod import Resources
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.steps import step_named
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.log import warn

DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = Path("/dev")


def gpus_asked(spec: TrainingRunSpec, step: str) -> int:
    """How many GPUs the pods of a step get."""
    own = spec.step_resources.evaluate or Resources()
    resources = spec.resources if step_named(step).gets_devices else own
    given = {**resources.requests, **resources.limits}
    return sum(int(str(n)) for name, n in given.items() if is_gpu(name) and str(n).isdecimal())


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU, or a part of one."""
    domain, _, name = resource.partition("/")
    return name == "gpu" or (domain == "nvidia.com" and name.startswith(("gpu", "mig-")))


def check_simulated(asked: int, environment: Mapping[str, str] = os.environ) -> None:
    """For a process that sees no GPU.

    Raises:
        UserError: it should, and nobody has said that the CPU stands in for it.
    """
    if not asked:
        return
    if environment.get(ENV_SIMULATED_GPU) or environment.get(ENV_SIMULATED_DEVICE_MEMORY):
        warn(
            f"the run asks for {asked} GPU{'s' if asked > 1 else ''}, and there is none here: the CPU stands in for it"
        )
        return
    raise refusal(asked, environment)


def refusal(asked: int, environment: Mapping[str, str] = os.environ) -> UserError:
    """What was found."""
    import torch

    found, hint = (
        [],
        "check the device plugin and the driver of the node (nvidia-smi there), or take the GPU out of spec.resources",
    )
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "none", "void", "NoDevFiles"):
        found.append(f"CUDA_VISIBLE_DEVICES is {hidden!r}")
        hint = "remove CUDA_VISIBLE_DEVICES from spec.podTemplate.env, or from the image"
    if not any(DEVICES.glob("nvidia[0-9]*")):
        found.append(f"there is no {DEVICES}/nvidia0")
    if not DRIVER.exists():
        found.append("the node has no driver loaded")
    if shutil.which("nvidia-smi") is None:
        found.append("there is no nvidia-smi in the container")
    if torch.version.cuda is None and torch.version.hip is None:
        found.insert(0, f"torch {torch.__version__} is built for the CPU")
        hint = "use the trainer's CUDA image (spec.image), or take the GPU out of spec.resources"
    elif told := _told_by_torch():
        found.append(f"torch says: {told}")
    return invalid_config(
        f"spec.resources asks for {asked} GPU{'s' if asked > 1 else ''}, and this process sees none: {'; '.join(found)}",
        hint=hint,
    )


def _told_by_torch() -> str:
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return first_line(error, 200).rstrip(".")
    return ""
