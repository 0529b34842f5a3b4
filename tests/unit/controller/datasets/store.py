"""A trace store of this project: the operator as a process with the datasets' API, and pods that are played on this machine.

A Job's container is run as a process, with its own command and environment; folders of the pod are folders of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.unit.lab.laboratory import NAMESPACE, Laboratory, now

SECRET = "tunix-rt-training-secrets"

Play = Callable[["Store", dict[str, Any]], tuple[int, dict[str, Any] | None]]
"""What becomes of a Job: exit code, and the final record of its container."""


class Store(Laboratory):
    """Started by `with`; each new Job is played in a thread of its own."""

    def __init__(self, folder: Path, play: Play) -> None:
        self.datasets = free_port()
        super().__init__(
            folder, TRAINYARD_DATASETS_NAMESPACE=NAMESPACE, TRAINYARD_DATASETS_LISTEN_PORT=str(self.datasets)
        )
        self._play = play
        self._over = threading.Event()
        self._played: set[str] = set()
        self._player = threading.Thread(target=self._watch, name="pods", daemon=True)

    def __enter__(self) -> Store:
        super().__enter__()
        self._player.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._over.set()
        self._player.join(30)
        super().__exit__(*failed)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.datasets}"

    def curl(self, line: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of a shell as it is printed; only the port is another one."""
        script = line.replace("localhost:8000", f"localhost:{self.datasets}").replace(
            "curl ", "curl -sS --max-time 90 "
        )
        return subprocess.run(["bash", "-euc", script], cwd=cwd, capture_output=True, text=True, timeout=120)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for (_, name), job in list(self.kube.objects["jobs"].items()):
                if name not in self._played:
                    self._played.add(name)
                    threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _run(self, job: dict[str, Any]) -> None:
        code, record = self._play(self, job)
        if code == -1:
            return  # a pod that never starts
        message = json.dumps(record) if record else ""
        terminated = {"exitCode": code, "finishedAt": now(), "message": message}

        def ended() -> None:
            if (NAMESPACE, job["metadata"]["name"]) not in self.kube.objects["jobs"]:
                return  # deleted meanwhile, and its pod with it
            self._put_pod(job, {"terminated": terminated}, phase="Failed" if code else "Succeeded")
            self._end_job(job, failed=bool(code))

        self._call(ended)


def step_of(job: dict[str, Any]) -> str:
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    return str(command[3])


def process(store: Store, job: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """The container as a process of this machine."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    pod = store.folder / job["metadata"]["name"]
    (pod / "secrets" / SECRET).mkdir(parents=True)
    places = {
        "/trainyard/checkpoints": store.folder / "claims",
        "/trainyard/cache": pod / "cache",
        "/trainyard/secrets": pod / "secrets",
        "/trainyard/volumes": pod / "volumes",
        "/etc/trainyard": pod / "etc",
        "/dev/termination-log": pod / "termination-log",
    }
    mounted = {v["secret"]["secretName"] for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v}
    if SECRET in mounted:
        (pod / "secrets" / SECRET / "database-url").write_text(store.from_secret(SECRET, "database-url") or "")
    (pod / "etc").mkdir()
    for name in ("run.json", "token"):
        own = next(s for s in mounted if s.endswith("-trainyard"))
        (pod / "etc" / name).write_text(store.from_secret(own, name) or "")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for name, value in store._environment(job).items():
        for there, here in places.items():
            value = value.replace(there, str(here))
        env[name] = value
    command = [sys.executable, *container["command"][1:]]
    done = subprocess.run(command, env=env, cwd=pod, capture_output=True, text=True, timeout=120)
    (pod / "log").write_text(done.stdout + done.stderr)
    note = pod / "termination-log"
    return done.returncode, json.loads(note.read_text()) if note.exists() else None
