"""More servers that collectors are tested against: Prometheus over blocks of the past, Loki, and an S3 server.

Loki and versitygw are built from their Go modules at first use; Loki takes many minutes. Samples of the past are written
with Prometheus' own tool.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.servers.restartable import KEPT, Server, prometheus_tools


def go_program(name: str, package: str) -> Path:
    """A program of the Go module in tests/servers/<name>, built when its go.sum changed."""
    module = Path(__file__).parent / name
    binary, note = KEPT / name / name, KEPT / name / "go.sum"
    wanted = (module / "go.sum").read_text()
    if not binary.exists() or not note.exists() or note.read_text() != wanted:
        binary.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w"]
        _run(["nice", "go", "build", *flags, "-o", str(binary), package], module)
        note.write_text(wanted)
    return binary


@contextmanager
def prometheus(
    data: Path,
    *,
    scrape_itself: bool = False,
    scrape: Sequence[dict[str, Any]] = (),
    seconds: int = 1,
    host: str = "127.0.0.1",
) -> Iterator[Server]:
    """Prometheus over the blocks in `data`, which scrapes the jobs of `scrape` every so many seconds."""
    config, port = data.parent / f"{data.name}.yaml", free_port()
    own = {"job_name": "own", "static_configs": [{"targets": [f"{host}:{port}"]}]}
    jobs = [*scrape, *([own] if scrape_itself else [])]
    config.write_text(json.dumps({"global": {"scrape_interval": f"{seconds}s"}, "scrape_configs": jobs}))
    command = [
        str(prometheus_tools() / "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address={host}:{port}",
        "--log.level=warn",
    ]
    yield from _running(Server(command, url=f"http://{host}:{port}", health="/-/ready", log=data.parent / "log"))


def create_blocks(openmetrics: Path, data: Path) -> None:
    """Samples in the OpenMetrics format, written by Prometheus' own tool."""
    data.mkdir(parents=True, exist_ok=True)
    tool = prometheus_tools() / "promtool"
    # The tool reads the file once per block; its own default of two hours makes that hundreds of times.
    words = ["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=744h", str(openmetrics), str(data)]
    _run([str(tool), *words], data)


LOKI_CONFIG = """
auth_enabled: {auth}
server: {{http_listen_address: {host}, http_listen_port: {port}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc},
  log_level: error, http_server_write_timeout: 10m}}
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
  query_timeout: 10m
  ingestion_rate_mb: 1000
  ingestion_burst_size_mb: 1000
  per_stream_rate_limit: 1GB
  per_stream_rate_limit_burst: 1GB
  unordered_writes: true
  max_query_series: 10000
ingester: {{max_chunk_age: 2h, chunk_idle_period: 30m, wal: {{enabled: false}}}}
"""


@contextmanager
def loki(data: Path, *, auth: bool = False, host: str = "127.0.0.1") -> Iterator[Server]:
    """A single Loki with files below `data`."""
    binary = go_program("loki", "github.com/grafana/loki/v3/cmd/loki")
    port = free_port()
    config = data / "loki.yaml"
    config.write_text(LOKI_CONFIG.format(data=data, host=host, port=port, grpc=free_port(), auth=str(auth).lower()))
    command = [str(binary), f"-config.file={config}"]
    yield from _running(Server(command, url=f"http://{host}:{port}", health="/ready", log=data / "log"))


@contextmanager
def versitygw(data: Path, *, access: str, secret: str, host: str = "127.0.0.1") -> Iterator[Server]:
    """An S3 server over the folder `data`: buckets are its folders."""
    binary = go_program("versitygw", "github.com/versity/versitygw/cmd/versitygw")
    port = free_port()
    identities = data.parent / f"{data.name}-identities"
    identities.mkdir(exist_ok=True)
    words = ["--port", f"{host}:{port}", "--health", "/health", "--iam-dir", str(identities), "posix", str(data)]
    yield from _running(
        Server(
            [str(binary), *words],
            url=f"http://{host}:{port}",
            health="/health",
            log=data.parent / "log",
            env={"ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
        )
    )


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}"
