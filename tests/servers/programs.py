"""The real servers that collectors are tested against: fetched or built once, kept, and run on loopback addresses.

Prometheus comes from Debian's package, unpacked into a folder and not installed, so no daemon starts. Loki and versitygw
are built from their Go modules; Loki takes many minutes the first time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "servers"
READY_SECONDS = 120.0


class NotToBeHad(Exception):
    """A server cannot be fetched or built here."""


def prometheus_tools() -> Path:
    """The folder with Debian's prometheus and promtool."""
    folder = KEPT / "prometheus"
    if not (folder / "usr/bin/prometheus").exists():
        downloads = KEPT / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        downloads.chmod(0o777)  # apt downloads as a user of its own
        try:
            _run(["apt-get", "download", "-qq", "prometheus"], downloads)
        except NotToBeHad:
            _run(["apt-get", "update", "-qq"], downloads)
            _run(["apt-get", "download", "-qq", "prometheus"], downloads)
        (package,) = downloads.glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(folder)], KEPT)
        shutil.rmtree(downloads)
    return folder / "usr/bin"


def go_program(name: str, package: str) -> Path:
    """A program of the Go module in tests/servers/<name>, built when its go.mod changed."""
    module = Path(__file__).parent / name
    binary, note = KEPT / name / name, KEPT / name / "go.sum"
    wanted = (module / "go.sum").read_text()
    if not binary.exists() or not note.exists() or note.read_text() != wanted:
        binary.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w"]
        _run(["nice", "go", "build", *flags, "-o", str(binary), package], module)
        note.write_text(wanted)
    return binary


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def prometheus(data: Path, *, scrape: str = "") -> Iterator[Server]:
    """Prometheus over the blocks in `data`; `scrape` is YAML for scrape_configs."""
    config = data.parent / f"{data.name}.yaml"
    config.write_text("global: {scrape_interval: 1s}\nscrape_configs:\n" + (scrape or "  []\n"))
    port = free_port()
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with running([str(prometheus_tools() / "prometheus"), *arguments], port, "/-/ready") as server:
        yield server


def create_blocks(openmetrics: Path, data: Path) -> None:
    """Samples in the OpenMetrics format, written by Prometheus' own tool."""
    _run(
        [
            str(prometheus_tools() / "promtool"),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            str(openmetrics),
            str(data),
        ],
        data,
    )


LOKI_CONFIG = """
auth_enabled: {auth}
server: {{http_listen_address: 127.0.0.1, http_listen_port: {port}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc},
  log_level: error}}
analytics: {{reporting_enabled: false}}
common:
  instance_addr: 127.0.0.1
  path_prefix: {data}
  replication_factor: 1
  ring: {{kvstore: {{store: inmemory}}}}
  storage: {{filesystem: {{chunks_directory: {data}/chunks, rules_directory: {data}/rules}}}}
schema_config:
  configs:
    - {{from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {{prefix: index_, period: 24h}}}}
limits_config:
  reject_old_samples: false
  ingestion_rate_mb: 1000
  ingestion_burst_size_mb: 1000
  per_stream_rate_limit: 1GB
  per_stream_rate_limit_burst: 1GB
  unordered_writes: true
  max_query_series: 10000
ingester: {{max_chunk_age: 2h, chunk_idle_period: 30m, wal: {{enabled: false}}}}
"""


@contextmanager
def loki(data: Path, *, auth: bool = False) -> Iterator[Server]:
    """A single Loki with files below `data`."""
    binary = go_program("loki", "github.com/grafana/loki/v3/cmd/loki")
    port = free_port()
    config = data / "loki.yaml"
    config.write_text(LOKI_CONFIG.format(data=data, port=port, grpc=free_port(), auth=str(auth).lower()))
    with running([str(binary), f"-config.file={config}"], port, "/ready") as server:
        yield server


@contextmanager
def versitygw(data: Path, *, access: str, secret: str) -> Iterator[Server]:
    """An S3 server over the folder `data`: buckets are its folders."""
    binary = go_program("versitygw", "github.com/versity/versitygw/cmd/versitygw")
    port = free_port()
    identities = data.parent / f"{data.name}-identities"
    identities.mkdir(exist_ok=True)
    command = [str(binary), "--port", f"127.0.0.1:{port}", "--iam-dir", str(identities), "posix", str(data)]
    variables = {"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret}
    with running(command, port, "/", environment=variables, any_answer=True) as server:
        yield server


@contextmanager
def running(
    command: list[str], port: int, ready: str, *, environment: dict[str, str] | None = None, any_answer: bool = False
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it in the end."""
    with open(KEPT / "last.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url + ready, any_answer)
        yield Server(url, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, any_answer: bool) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise NotToBeHad(f"{process.args} ended: {(KEPT / 'last.log').read_text(errors='replace')[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if any_answer or error.code < 400:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise NotToBeHad(f"{process.args} was not ready after {READY_SECONDS} s")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotToBeHad(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}")
