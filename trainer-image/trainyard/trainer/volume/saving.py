"""Saving beside the training: it waits for a copy in host memory, and the disk is somebody else's matter.

Hashing, flushing and renaming take many times as long as copying. They are done by a thread, one save at a time; a second
one that is due meanwhile waits for the first. What the thread meets (a full disk, a broken volume) is raised in the training
at its next step, because a training that cannot keep its work should not go on for a day before saying so. Whoever leaves,
at the end or on a stop signal, waits first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from trainyard.trainer.machine.simulation import unobserved
from trainyard.trainer.volume.commit import Write


class Saver:
    """Runs `commit(step, write)` in a thread. Used by one thread."""

    def __init__(self, commit: Callable[[int, Write], None]) -> None:
        self._commit = commit
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.waited = 0.0
        """Seconds that the training has waited for saves."""

    def save(self, step: int, write: Write) -> None:
        """Commit and return when it is done.

        Raises:
            Exception: what this save, or the one before it, met.
        """
        self.wait()
        started = time.monotonic()
        self._commit(step, write)
        self.waited += time.monotonic() - started

    def begin(self, step: int, write: Write) -> None:
        """Start to commit what `write` has in memory; waits for the one before.

        Raises:
            Exception: what the one before met.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(step, write), name=f"save-{step}")
        self._thread.start()

    def check(self) -> None:
        """Raises what the save in flight has met so far; never waits."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until nothing is in flight; raises what it met."""
        started = time.monotonic()
        self.finish()
        self.waited += time.monotonic() - started
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def finish(self) -> None:
        """The same for somebody who leaves with an error of their own: raises nothing."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, step: int, write: Write) -> None:
        try:
            self._commit(step, write)
        except BaseException as failure:
            self._failure = failure


def copied(value: Any) -> Any:
    """A copy in host memory of every tensor in nested dictionaries, lists and tuples. Tensors that share their memory share
    it in the copy, as tied embeddings must."""
    with unobserved():  # host memory is not the device's
        return _copied(value, {})


def _copied(value: Any, seen: dict[tuple[Any, ...], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if value.data_ptr() == 0 or key not in seen:
            # The original is kept alive beside its copy: an address may not be given to another tensor meanwhile.
            seen[key] = value, value.detach().to("cpu", copy=True)
        return seen[key][1]
    if isinstance(value, dict):
        return type(value)((name, _copied(entry, seen)) for name, entry in value.items())
    if isinstance(value, list | tuple):
        return type(value)(_copied(entry, seen) for entry in value)
    return value


def size_of(value: Any) -> int:
    """Bytes of all tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 0
