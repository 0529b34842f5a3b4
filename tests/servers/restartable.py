"""Real servers that are stopped and started again in a test, at the same address and with their data kept.

MLflow and TensorBoard live in environments of their own, because they want other versions of half of what the operator
uses. They are test tools: nothing of Trainyard needs them.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from tests import ROOT
from tests.ports import free_port

KEPT = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "servers"
MLFLOW_VERSION = "3.17.2"
REGISTRY_LOGIN = ("bot", "correct-horse")
REGISTRY_HASH = "$2b$04$O7gHEp6JVovgYWVc7SixNuVH.Y1z2/2P3HKDbYH7cBqfgz4m5Oxq2"
"""bcrypt of the password, the one kind that the registry knows."""
HTTP = urllib3.PoolManager(retries=False, timeout=5)


def prometheus_tools() -> Path:
    """The folder with prometheus and promtool: Debian's package, unpacked and not installed, so no daemon starts."""
    place = KEPT / "prometheus"
    if not (place / "usr/bin/prometheus").exists():
        downloads = KEPT / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        downloads.chmod(0o777)  # apt downloads as a user of its own
        _run(["apt-get", "download", "-qq", "prometheus"], downloads)
        (package,) = downloads.glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(place)], KEPT)
        shutil.rmtree(downloads)
    return place / "usr/bin"


def mlflow_program() -> Path:
    """MLflow's own command in its own environment."""
    return _environment("mlflow", f"mlflow=={MLFLOW_VERSION}") / "mlflow"


def tensorboard_python() -> Path:
    """A Python that has TensorBoard."""
    return _environment("tensorboard", "tensorboard", "setuptools<81") / "python"


def trackio_python() -> Path:
    """A Python that has Trackio and what it reads TensorBoard's files with."""
    return _environment("trackio", "trackio[tensorboard]==0.43.0", "setuptools<81") / "python"


def grafana_python() -> Path:
    """A Python with Grafana's library for dashboards."""
    return _environment("grafana", "grafana-foundation-sdk==1769699998!10.1.0") / "python"


def _environment(name: str, *packages: str) -> Path:
    """The folder with the programs of an environment for these packages."""
    place = KEPT / name
    if not (place / "bin").exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or str(ROOT / ".cluster/uv/bin/uv")
        _run([uv, "venv", "--quiet", "--python", "python3", str(place)], KEPT)
        _run([uv, "pip", "install", "--quiet", "--python", str(place / "bin/python"), *packages], KEPT)
    return place / "bin"


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"


class Server:
    """A process that can be stopped and started again at the same address, with its data kept."""

    def __init__(
        self, command: list[str], *, url: str, health: str, log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.url = url
        self._command = command
        self._health = health
        self._log = log
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 300) -> None:
        """Until it answers."""
        with self._log.open("ab") as log:
            # A session of its own: MLflow leaves workers behind that outlive it otherwise.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._env, start_new_session=True, cwd=self._log.parent
            )
        until(self._answers, seconds=seconds, what=lambda: f"{self._command[0]}: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """At once, as when its machine fails."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            until(lambda: not self._answers(), seconds=10, what=lambda: "the port is still open")

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, self._log.read_text()[-2000:]
        try:
            return HTTP.request("GET", f"{self.url}{self._health}").status == 200
        except urllib3.exceptions.HTTPError:
            return False


def until(holds: Callable[[], bool], *, seconds: float, what: Callable[[], str]) -> None:
    """Ask other programs, which cannot call back, until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@contextmanager
def prometheus(folder: Path, *, target: int, rules: Sequence[Path] = ()) -> Iterator[Server]:
    """Prometheus that scrapes a port of this machine every second, and evaluates rules as often."""
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: {[str(path) for path in rules]}\n"
        f"scrape_configs: [{{job_name: test, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
    )
    words = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    server = Server([str(prometheus_tools() / "prometheus"), *words], url=url, health="/-/ready", log=folder / "log")
    yield from _running(server)


@contextmanager
def mlflow(folder: Path, *, host: str = "127.0.0.1") -> Iterator[Server]:
    """MLflow's tracking server and registry over a database file."""
    port = free_port()
    words = ["server", "--host", host, "--port", str(port), "--workers", "1"]
    words += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    server = Server(
        [str(mlflow_program()), *words],
        url=f"http://{host}:{port}",
        health="/health",
        log=folder / "log",
        # Pods call it by a name of the cluster, which it refuses otherwise.
        env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_SERVER_ALLOWED_HOSTS": "*"},
    )
    yield from _running(server)


@contextmanager
def registry(folder: Path, *, closed: bool = False) -> Iterator[Server]:
    """Debian's docker-registry, the same that serves the local cluster; a closed one asks for the user of REGISTRY_LOGIN."""
    port, config = free_port(), folder / "registry.json"
    document: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    health = "/v2/"
    if closed:
        (folder / "htpasswd").write_text(f"{REGISTRY_LOGIN[0]}:{REGISTRY_HASH}\n")
        document["auth"] = {"htpasswd": {"realm": "registry", "path": str(folder / "htpasswd")}}
        health = "/"
    config.write_text(json.dumps(document))
    server = Server(
        ["docker-registry", "serve", str(config)], url=f"http://127.0.0.1:{port}", health=health, log=folder / "log"
    )
    yield from _running(server)


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()
