"""What it runs on, and in which precision.

BF16 halves memory and multiplies speed where the hardware computes in it, and is very slow where it is emulated, so Auto
asks the hardware: a GPU of compute capability 8 or newer, or a CPU with AMX. A GPU that is older gets FP16, with loss
scaling, and any other CPU gets FP32.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import warn
from trainyard.trainer.machine.missing_gpu import check_simulated

if TYPE_CHECKING:
    import torch

Precision = Literal["FP32", "BF16", "FP16"]


@dataclass(frozen=True)
class Device:
    """One device and the precision it computes in. `memory` is in bytes; None if unknown."""

    kind: Literal["cuda", "cpu"]
    name: str
    precision: Precision
    memory: int | None

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type that matrix products are done in."""
        import torch

        return {"FP32": torch.float32, "BF16": torch.bfloat16, "FP16": torch.float16}[self.precision]

    def memory_used(self) -> int:
        """Bytes at the highest point so far: of the GPU if there is one, else of the process."""
        import torch

        return torch.cuda.max_memory_allocated() if self.kind == "cuda" else peak_memory_of_process()


def find_device(wanted: Literal["Auto", "FP32", "BF16", "FP16"], *, processes: int = 1, gpus_asked: int = 0) -> Device:
    """The device of this process, of so many in this container, with `spec.training.precision` resolved.

    Raises:
        UserError: the precision cannot be had here, or a GPU was asked for and is not there.
    """
    import torch

    if torch.cuda.is_available():
        if (count := torch.cuda.device_count()) != processes:
            raise invalid_config(
                f"this container has {count} GPUs for {processes} processes, and one process works on one",
                hint="make nvidia.com/gpu in the limits of the step and spec.numProcPerNode the same number",
            )
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        native_bf16 = properties.major >= 8
        if wanted == "BF16" and not native_bf16:
            raise invalid_config(
                f"spec.training.precision BF16: {properties.name} does not compute in it",
                hint="use FP16 or Auto",
            )
        precision: Precision = wanted if wanted != "Auto" else "BF16" if native_bf16 else "FP16"
        return Device("cuda", properties.name, precision, properties.total_memory)
    check_simulated(gpus_asked)
    if wanted == "FP16":
        raise invalid_config(
            "spec.training.precision FP16 needs a GPU, and this step has none",
            hint="use Auto, or ask for a GPU in spec.resources.limits",
        )
    fast_bf16 = "amx_bf16" in cpu_flags()
    if wanted == "BF16" and not fast_bf16:
        warn("precision BF16 on a CPU without AMX is emulated in part and slow; Auto would take FP32")
    precision = wanted if wanted != "Auto" else "BF16" if fast_bf16 else "FP32"
    return Device("cpu", cpu_name(), precision, memory_of_container())


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU, as Linux names them."""
    return frozenset(_cpuinfo("flags").split())


@functools.cache
def cpu_name() -> str:
    """For people."""
    return _cpuinfo("model name") or "CPU"


def memory_of_container() -> int | None:
    """The memory limit in bytes: of the container if it has one, else of the machine."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(file).read_text())
        except (OSError, ValueError):
            continue
        if limit < 1 << 50:
            return limit
    try:
        return int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def available_host_memory() -> int:
    """Bytes that this process may still take: of its container, and of the machine."""
    rooms = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        rooms.append(int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError, IndexError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        reclaimable = int((group / "memory.stat").read_text().split("inactive_file ")[1].split()[0])
        rooms.append(int((group / "memory.max").read_text()) - used + reclaimable)
    return max(0, min(rooms, default=0))


def peak_memory_of_process() -> int:
    """Bytes that were resident at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_cuda() -> bool:
    """Whether a GPU computes."""
    import torch

    return torch.cuda.is_available()


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed_memory() -> None:
    """Tell glibc to keep what torch frees, for the next step. By default every activation of more than a few hundred
    kilobytes is mapped from the kernel, zeroed page by page and given back again, in every step: a fifth of the time of a
    small model's training on a CPU. The price is that memory once used stays with the process."""
    import ctypes

    trim_threshold, mmap_max = -1, -4  # names of <malloc.h>: M_TRIM_THRESHOLD, M_MMAP_MAX
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(ctypes.c_int(mmap_max), ctypes.c_int(0))
    mallopt(ctypes.c_int(trim_threshold), ctypes.c_int(2**31 - 1))


def _cpuinfo(field: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(field):
                return line.split(":", 1)[1].strip()
    except (OSError, IndexError):
        pass
    return ""
