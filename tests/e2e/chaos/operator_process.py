"""The operator as a process of this machine, whose clock can be moved and which can be killed, stopped and started."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.ports import free_port

HOST_ADDRESS = "10.91.0.1"
"""This machine as the local cluster's pods see it."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""From Debian's package faketime."""


class OperatorProcess:
    """`python -m trainyard.controller` for one namespace."""

    def __init__(self, folder: Path, kubeconfig: Path, *, namespace: str, image: str) -> None:
        self.log = folder / "operator.log"
        self.starts = self.kills = 0
        self._clock = folder / "clock"
        self.move_clock(0)
        ports = {name: free_port() for name in ("HEALTH", "METRICS", "RECEIVER", "PAGE")}
        self._health, self._metrics = ports["HEALTH"], ports["METRICS"]
        self._environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KUBECONFIG": str(kubeconfig),
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "TRAINYARD_TRAINER_IMAGE": image,
            "TRAINYARD_NAMESPACES": namespace,
            "TRAINYARD_OPERATOR_NAMESPACE": namespace,
            "TRAINYARD_IDENTITY": "chaos",
            "TRAINYARD_RECEIVER_URL": f"http://{HOST_ADDRESS}:{ports['RECEIVER']}",
            "TRAINYARD_RETRY_BASE_SECONDS": "2",
            "TRAINYARD_RETRY_CAP_SECONDS": "20",
            **{f"TRAINYARD_{name}_LISTEN_PORT": str(port) for name, port in ports.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; nothing happens where it runs."""
        if self._process is None or self._process.poll() is not None:
            self.starts += 1
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "trainyard.controller"]
                self._process = subprocess.Popen(command, env=self._environ, cwd="/", stderr=log, stdout=log)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self.kills += 1

    def freeze(self, frozen: bool) -> None:
        """SIGSTOP or SIGCONT: a process that is there and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def move_clock(self, seconds: int) -> None:
        """From now on its wall clock is so far from this machine's."""
        fresh = self._clock.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._clock)

    def ready(self) -> bool:
        """Whether it works: it holds the Lease, and its watches stand."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def until_ready(self, *, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not self.ready():
            assert time.monotonic() < deadline, f"the operator is not ready after {seconds:.0f} s; see {self.log}"
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
