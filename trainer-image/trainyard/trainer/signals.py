"""SIGTERM: the pod is going (suspended, drained, preempted). Leave with what is worth keeping, and soon.

Two manners, because the stages differ in what they can lose:

* Outside of training everything on the volume is committed folder by folder, so the process may simply end. It does,
  from a thread of its own: a Python signal handler runs only between two bytecodes of the main thread, and that thread
  may sit for minutes inside a tokenizer or a matrix product. The C half of the handler writes a byte into a pipe at
  once (`signal.set_wakeup_fd`), and the thread reads it.
* While training, `deferred()` turns the signal into a flag. The loop sees it after the running micro-batch, commits a
  checkpoint and leaves with the same exit code.

Both end with exit code 75, which tells the operator to run the step again without counting the attempt.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The request to stop, and who answers it."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._deferred = threading.Lock()
        self._is_deferred = False

    @property
    def requested(self) -> bool:
        """Whether a stop signal has come in."""
        return self._requested.is_set()

    def request(self) -> None:
        """As if a signal had come in, for one that another process of the training has got."""
        self._requested.set()

    def install(self, leave: Callable[[], None]) -> None:
        """Listen from now on. `leave` is called from a thread, at most once, and must end the process."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)  # the wake-up byte is written whatever the handler does
        self._leave = leave
        threading.Thread(target=self._listen, args=(reading,), name="signals", daemon=True).start()

    def _listen(self, reading: int) -> None:
        while True:
            for number in os.read(reading, 64):
                if number in STOP_SIGNALS:
                    self._requested.set()
                    with self._deferred:
                        if not self._is_deferred:
                            self._leave()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets the flag. A signal that came in before, or is not answered by the end, ends the
        process on the way out."""
        with self._deferred:
            self._is_deferred = True
        try:
            yield
        finally:
            with self._deferred:
                self._is_deferred = False
                if self.requested:
                    self._leave()


STOP = Stop()
"""The process's own; signal handlers are global, so this is too."""
