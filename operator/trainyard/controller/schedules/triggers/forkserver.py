"""The process that makes the processes of looks: it has everything loaded that a look needs, and forks one for each.

    python -m trainyard.controller.schedules.triggers.forkserver

Standard input is a socket to the operator. An order says a number and limits and brings the pipe that the look will speak
over, so that neither what it is told nor what it answers passes through here; what comes back is the number and how the
process ended. When the operator goes, this goes, and all looks with it.

It has one thread and no more than it needs: a fork costs a few milliseconds instead of the quarter of a second of a new
interpreter, and starts from a process that has never seen a credential.
"""

import gc
import os
import select
import signal
import socket
import time
from contextlib import suppress

from trainyard.controller.schedules.triggers import access, child
from trainyard.controller.schedules.triggers.orders import GRACE_SECONDS, SIZE, End, Order, Stop, received


class ForkServer:
    """Forks looks and tells how they ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._looks: dict[int, tuple[int, float]] = {}  # by pid: number, deadline
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._loaded: set[str] = set()

    def serve(self) -> None:
        """Until the operator is gone."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        access.default_context()
        gc.collect()
        gc.freeze()  # what every look shares is not to be copied by its garbage collector
        while True:
            readable, _, _ = select.select([self._control, self._woken], [], [], 1.0 if self._looks else None)
            if self._control in readable and not self._take_order():
                break
            if self._woken in readable:
                self._woken.recv(4096)
            self._bury()
            for pid in [pid for pid, (_, deadline) in self._looks.items() if time.monotonic() > deadline]:
                os.kill(pid, signal.SIGKILL)
        for pid in self._looks:
            os.kill(pid, signal.SIGKILL)

    def _take_order(self) -> bool:
        data, pipes, _, _ = socket.recv_fds(self._control, SIZE, 1)
        if not data:
            return False
        match received(data):
            case Order() as order:
                self._fork(order, socket.socket(fileno=pipes[0]))
            case Stop(number):
                for pid in [pid for pid, (known, _) in self._looks.items() if known == number]:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, order: Order, pipe: socket.socket) -> None:
        with pipe:
            try:
                self._load(order.kind)
                pid = os.fork()
            except (OSError, ImportError) as error:
                self._tell(End(order.number, failed=str(error)[:500]))
                return
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for held in (self._control, self._woken, self._wakes):
                    held.close()
                child.live(pipe, order)
        self._looks[pid] = order.number, time.monotonic() + order.seconds + GRACE_SECONDS

    def _load(self, kind: str) -> None:
        if kind not in self._loaded:
            child.reader(kind)
            self._loaded.add(kind)
            gc.freeze()

    def _bury(self) -> None:
        while self._looks:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            number, deadline = self._looks.pop(pid)
            self._tell(
                End(
                    number,
                    status=status,
                    late=time.monotonic() > deadline,
                    cpu_seconds=used.ru_utime + used.ru_stime,
                    peak_kib=used.ru_maxrss,
                )
            )

    def _tell(self, end: End) -> None:
        with suppress(OSError):  # the operator is gone, which the next order will show
            self._control.send(end.sent())


def main() -> None:
    """Serve the operator at the other end of standard input."""
    ForkServer(socket.socket(fileno=0)).serve()


if __name__ == "__main__":
    main()
