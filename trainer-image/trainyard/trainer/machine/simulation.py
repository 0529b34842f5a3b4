"""A CPU that plays a device with little memory, so that running out of it can be tested for real.

With `SIMULATED_DEVICE_MEMORY` set to a number of bytes, every tensor that an operation reads or makes counts as lying on
the device until it is freed, in the forward and in the backward pass, and the operation that goes beyond the limit raises
what CUDA's allocator would. Slow, and only ever on the CPU; a means for tests, also in a pod (`spec.podTemplate.env`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter

from trainyard.api.names import ENV_SIMULATED_DEVICE_MEMORY


class SimulatedDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, raises torch.OutOfMemoryError once more than `limit` bytes of tensors are alive."""

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._used = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                self._count(value.untyped_storage())
        if self._used > self.limit:
            self._sweep()
        if self._used > self.limit:
            raise torch.OutOfMemoryError(
                f"simulated device out of memory: {func} brings it to {self._used:,} of {self.limit:,} bytes"
            )
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        # The weak reference keeps the address from being used again while it stands in the table.
        known = self._live.get(storage._cdata)
        if known is not None and known[1] == storage.nbytes():
            return
        if known is not None:
            self._used -= known[1]
        weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self._live[storage._cdata] = weak, storage.nbytes()
        self._used += storage.nbytes()

    def _sweep(self) -> None:
        self._live = {
            key: entry
            for key, entry in self._live.items()
            if not entry[0].expired()  # type: ignore[no-untyped-call]
        }
        self._used = sum(size for _, size in self._live.values())


def unobserved() -> contextlib.AbstractContextManager[Any]:
    """For what is done in host memory beside the device."""
    if simulated_limit() is None:
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[Any] = _disable_current_modes()
    return manager


def simulated_limit(environment: Mapping[str, str] = os.environ) -> int | None:
    """Bytes, or None where no device is simulated."""
    text = environment.get(ENV_SIMULATED_DEVICE_MEMORY, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def simulated_device() -> contextlib.AbstractContextManager[Any]:
    """The device that the environment asks for; nothing without."""
    limit = simulated_limit()
    return SimulatedDevice(limit) if limit is not None else contextlib.nullcontext()
