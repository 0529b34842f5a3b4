"""A piece of work in a process of its own, which gives all its memory back at its end; libraries keep what they have had."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
PR_SET_PDEATHSIG = 1


def apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, called in a new process, which does not outlive this one. All has to be picklable.

    Raises:
        MemoryError: the process was killed, as the kernel does for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            return pool.submit(work, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise MemoryError(f"the process of {work.__name__} was killed") from error


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
