"""The life of a look's process: limits first, then the ask, one answer, the end.

It is forked for one look, so it can be ended at any moment without harm, and what it has learned (credentials, a source's
answer) is gone with it.
"""

import encodings.idna  # noqa: F401  what every name resolution loads
import os
import resource
import signal
import socket
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol, cast

from trainyard.controller.schedules.triggers.answer import Answer, SourceDown, sent, sent_down, sent_failed
from trainyard.controller.schedules.triggers.ask import KINDS, LIMIT, Ask
from trainyard.controller.schedules.triggers.door import Door
from trainyard.controller.schedules.triggers.orders import OUT_OF_MEMORY, Order
from trainyard.controller.schedules.triggers.wall import Refused, Wall

_MODULES = {"gitPath": "gitpath", "prometheus": "prometheus", "mlflowMetric": "mlflow", "dataset": "dataset"}
_ADDRESS_SPACE_BESIDE = 32 * 2**20
"""What libraries map that is no data."""
_OPEN_FILES = 64


class Reader(Protocol):
    """A module that reads one kind of source."""

    def read(self, door: Door, spec: Any, marks: Mapping[str, str], /) -> Answer: ...


def reader(kind: str) -> Reader:
    """The module for this kind of source. It is loaded when the first such source is asked."""
    return cast(Reader, import_module(f"{__package__}.{_MODULES[kind]}"))


def live(pipe: socket.socket, order: Order) -> NoReturn:
    """Take one look, and end."""
    code = 1
    try:
        confine(order)
        pipe.sendall(_look(_read(pipe)))
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except OSError:
        pass  # nobody waits for the answer any more
    finally:
        os._exit(code)


def confine(order: Order) -> None:
    """From now on there is only so much time and memory, no file to write and no process to start."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order.seconds)
    with suppress(OSError):  # where memory runs out nevertheless, the kernel is to end this process and not another one
        Path("/proc/self/oom_score_adj").write_text("1000")
    pages = [int(n) for n in Path("/proc/self/statm").read_text().split()]
    size, data = (pages[n] * resource.getpagesize() for n in (0, 5))
    for which, limit in (
        (resource.RLIMIT_DATA, data + order.memory),
        (resource.RLIMIT_AS, size + order.memory + _ADDRESS_SPACE_BESIDE),
        (resource.RLIMIT_CPU, order.cpu_seconds + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _, hard = resource.getrlimit(which)
        lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        # At the lower limit of time the kernel says why it ends a process, at the upper one it does not.
        resource.setrlimit(which, (lowest - (which == resource.RLIMIT_CPU), lowest))


def _look(ask: Ask) -> bytes:
    try:
        wall = Wall(ask.rules)
        wall.stand()
        spec = SimpleNamespace(**ask.spec)
        return sent(reader(ask.kind).read(Door(ask.access, wall), spec, ask.marks))
    except SourceDown as error:
        return sent_down(str(error))
    except Refused as error:
        return sent_down(f"{KINDS[ask.kind].field}: {error}")
    except MemoryError:
        raise
    except Exception as error:
        # A fault of ours, or an answer nobody thought of: it must be seen, and must not end the polling.
        return sent_failed(f"unexpected answer: {type(error).__name__}: {error}", traceback.format_exc())


def _read(pipe: socket.socket) -> Ask:
    data = b""
    while piece := pipe.recv(LIMIT):
        data += piece
        if len(data) > LIMIT:
            os._exit(1)
    return Ask.received(data)
