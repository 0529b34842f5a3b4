"""Several training processes in one pod: start them, pass signals on, and end as they end.

A pod has one exit code and one termination message, and the operator decides by them. So each process writes its final
record into a file of its own, and the pod ends with code and record of the one that ended badly first: what happens to the
others afterwards is only that they miss it. torchrun would restart them by itself and turn every code into 1.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainyard.api import names
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.log import say
from trainyard.trainer.machine.team import ranks
from trainyard.trainer.signals import STOP_SIGNALS

GRACE_SECONDS = 20.0
"""For the others to notice that one is gone, before they are killed; they may hang in the middle of a sum."""


def processes_here(environment: Mapping[str, str] = os.environ) -> int:
    """How many this pod has to start; 0 for one that is started already."""
    return 0 if "RANK" in environment else int(environment.get(names.ENV_NUM_PROC_PER_NODE, 1))


def launch(command: Sequence[str], count: int, *, termination_log: Path | None) -> int:
    """Run a command in `count` processes to their end. Returns the exit code for the pod."""
    children: list[subprocess.Popen[bytes]] = []
    told: list[int] = []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        for child in children:
            child.send_signal(number)  # does nothing to one that has ended

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    meeting = _meeting_point(os.environ)
    with tempfile.TemporaryDirectory(prefix="trainyard-") as place:
        records = [Path(place) / f"{local_rank}.json" for local_rank in range(count)]
        for local_rank, record in enumerate(records):
            own = {**meeting, **ranks(os.environ, local_rank), names.ENV_TERMINATION_LOG: str(record)}
            children.append(subprocess.Popen(command, env={**os.environ, **own}))
            if told:
                children[-1].send_signal(told[-1])
        worst = _wait(children)
        if termination_log is not None and records[worst].exists():
            termination_log.write_text(records[worst].read_text())
    for number, handler in before.items():
        signal.signal(number, handler)
    code = children[worst].returncode
    return code if code >= 0 else 128 - code


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Which one to speak of: the first that ended badly, or the first of all."""
    ended: queue.Queue[int] = queue.Queue()

    def watch(rank: int) -> None:
        children[rank].wait()
        ended.put(rank)

    for rank in range(len(children)):
        threading.Thread(target=watch, args=(rank,), daemon=True).start()
    worst: int | None = None
    killed = False
    running = set(range(len(children)))
    while running:
        try:
            rank = ended.get(timeout=None if worst is None else GRACE_SECONDS)
        except queue.Empty:
            killed = True
            for left in running:
                children[left].kill()
            continue
        running.remove(rank)
        code = children[rank].returncode
        if code == ExitCode.OK:
            continue
        # One that asks to be run again may only have missed another, whose end comes to light a moment later.
        if worst is None or (children[worst].returncode == ExitCode.RESUME and code != ExitCode.RESUME and not killed):
            worst = rank
        if code != ExitCode.RESUME and running:
            say(f"process {rank} of this pod ended with {code}; the others cannot go on without it")
    return worst or 0


def _meeting_point(environment: Mapping[str, str]) -> dict[str, str]:
    """An address of this machine, where no other one is given."""
    if names.ENV_MASTER_ADDR in environment:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {names.ENV_MASTER_ADDR: "127.0.0.1", names.ENV_MASTER_PORT: str(free.getsockname()[1])}
