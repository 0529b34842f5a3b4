"""The local cluster under observation: Prometheus that scrapes it, and Loki with what its parts and pods write.

Both stand on this machine at an address that pods reach. Prometheus shows the administrator's certificate, as an operator of
such a cluster would let it. What an agent does elsewhere is done once, by `ship`: read the logs of the components, of pods
and the events, and push them with a few labels. Every line keeps the time at which it was written.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.api.server import KUBECONFIG
from tests.e2e.installed import NAME, NAMESPACE
from tests.e2e.kube import EVENTS, Kube, Object
from tests.e2e.web import ADDRESS
from tests.servers.restartable import HTTP, Server, until
from tests.servers.source_servers import loki, prometheus
from trainyard.controller.kube.resources import NODES, PODS

LOGS = KUBECONFIG.parent / "log"
NANO = 10**9
SCRAPE_SECONDS = 5
LINES_AT_ONCE = 2000
"""Loki takes at most 4 MiB in one push."""
Stream = tuple[tuple[str, str], ...]
Entry = tuple[Stream, int, str]
_KLOG = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d:\d\d:\d\d\.\d+) ")
_STAMP = re.compile(r'(?:time=|"ts":)"(\d{4}-\d\d-\d\dT[\d:.]+)Z"')


@contextmanager
def watched(kube: Kube, folder: Path) -> Iterator[Server]:
    """Prometheus, scraping the API server, etcd, both kubelets with their containers, the proxy and the operator."""
    with prometheus(folder / "metrics", host=ADDRESS, scrape=_targets(kube, folder), seconds=SCRAPE_SECONDS) as server:
        yield server


def _targets(kube: Kube, folder: Path) -> list[Object]:
    config = yaml.safe_load(KUBECONFIG.read_text())
    parts = {**config["clusters"][0]["cluster"], **config["users"][0]["user"]}
    tls = {}
    for word, key in (
        ("ca_file", "certificate-authority-data"),
        ("cert_file", "client-certificate-data"),
        ("key_file", "client-key-data"),
    ):
        path = folder / word
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(parts[key]))
        tls[word] = str(path)
    secure: Object = {"scheme": "https", "tls_config": tls}
    (operator, *_) = [
        pod["status"]["podIP"]
        for pod in kube.list(PODS, NAMESPACE, labels=f"app.kubernetes.io/name={NAME}")
        if pod["status"].get("phase") == "Running"
    ]
    kubelets = [_kubelet(node) for node in _real_nodes(kube)]
    return [
        _job("apiserver", ["127.0.0.1:6443"], **secure),
        _job("kubelet", kubelets, **secure),
        _job("cadvisor", kubelets, metrics_path="/metrics/cadvisor", **secure),
        _job("etcd", ["127.0.0.1:2379"]),
        _job("kube-proxy", ["127.0.0.1:10249"]),
        _job("trainyard", [f"{operator}:9090"]),
    ]


def _real_nodes(kube: Kube) -> list[Object]:
    """All nodes but the fake ones of load tests, which have no kubelet."""
    return kube.list(NODES, labels="!trainyard.local/fake")


def _kubelet(node: Object) -> str:
    (address,) = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    return f"{address}:{node['status']['daemonEndpoints']['kubeletEndpoint']['Port']}"


def _job(name: str, targets: list[str], **more: Any) -> Object:
    return {"job_name": name, "static_configs": [{"targets": targets}], **more}


def scraped(server: Server) -> dict[str, int]:
    """For each job, how often all its targets were scraped so far."""
    query = urlencode({"query": "min by (job) (sum_over_time(up[1d]))"})
    answer = HTTP.request("GET", f"{server.url}/api/v1/query?{query}").json()
    return {r["metric"]["job"]: int(r["value"][1]) for r in answer["data"]["result"]}


@contextmanager
def logging(kube: Kube, folder: Path) -> Iterator[Server]:
    """Loki with what the cluster has written until now."""
    (folder / "lines").mkdir()
    with loki(folder / "lines", host=ADDRESS) as server:
        entries = [*component_lines(kube), *pod_lines(kube), *event_lines(kube)]
        ship(server, entries)
        yield server


def component_lines(kube: Kube) -> Iterator[Entry]:
    """What the cluster's own programs wrote; the node stands in the name of the file, where there is one."""
    nodes = tuple(node["metadata"]["name"] for node in _real_nodes(kube))
    for path in sorted(LOGS.glob("*.log*")):
        program = path.name.partition(".")[0]
        component, _, node = program.rpartition("-") if program.endswith(nodes) else (program, "", "")
        stream = (("component", component), *((("node", node),) if node else ()))
        year = datetime.fromtimestamp(path.stat().st_mtime, UTC).year
        at = 0
        for line in path.read_text(errors="replace").splitlines():
            at = written_at(line, year) or at
            if at and line.strip():
                yield stream, at, line


def written_at(line: str, year: int) -> int:
    """Nanoseconds since the epoch by the line's own word, 0 where it has none. klog does not tell the year."""
    if found := _KLOG.match(line):
        text = f"{year}-{found[1]}-{found[2]}T{found[3]}"
    elif found := _STAMP.search(line):
        text = found[1]
    else:
        return 0
    whole, _, fraction = text.partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * NANO + int(fraction[:9].ljust(9, "0"))


def pod_lines(kube: Kube) -> Iterator[Entry]:
    """The logs of all pods that have one container and have started it."""
    for pod in kube.list(PODS):
        meta = pod["metadata"]
        statuses = pod["status"].get("containerStatuses", [])
        if len(statuses) == 1 and {"running", "terminated"} & statuses[0].get("state", {}).keys():
            stream = (("component", "pods"), ("namespace", meta["namespace"]), ("pod", meta["name"]))
            for at, line in kube.timed_log(meta["namespace"], meta["name"]):
                if line.strip():
                    yield stream, int(at.timestamp() * 1e6) * 1000, line


def event_lines(kube: Kube) -> Iterator[Entry]:
    """Kubernetes' events as lines."""
    for event in kube.list(EVENTS):
        about = event["involvedObject"]
        at = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        level = "warning" if event["type"] == "Warning" else "info"
        line = f"level={level} reason={event.get('reason')} object={about['kind']}/{about['name']} {event.get('message', '')}"
        stream = (("component", "events"), ("namespace", event["metadata"]["namespace"]))
        yield stream, int(datetime.fromisoformat(at).timestamp()) * NANO, " ".join(line.split())


def ship(server: Server, entries: Iterable[Entry], *, days: int = 1) -> None:
    """Push the lines of the last days and wait until the server gives all of them out."""
    oldest = time.time_ns() - (days * 24 - 1) * 3600 * NANO
    found = [entry for entry in sorted(set(entries)) if entry[1] > oldest]
    for first in range(0, len(found), LINES_AT_ONCE):
        streams: dict[Stream, list[list[str]]] = {}
        for stream, at, line in found[first : first + LINES_AT_ONCE]:
            streams.setdefault(stream, []).append([str(at), line])
        body = {"streams": [{"stream": dict(stream), "values": values} for stream, values in streams.items()]}
        answer = HTTP.request("POST", f"{server.url}/loki/api/v1/push", json=body, timeout=60)
        assert answer.status == 204, answer.data
    HTTP.request("POST", f"{server.url}/flush", timeout=60)  # Loki answers about the past from what is on disk
    until(
        lambda: held(server, days) == len(found),
        seconds=120,
        what=lambda: f"{held(server, days)} of {len(found)} lines",
    )


def held(server: Server, days: int) -> int:
    """How many lines of the last days the server gives out."""
    total = f'sum(count_over_time({{component=~".+"}}[{days}d]))'
    query = urlencode({"query": total})
    answer = HTTP.request("GET", f"{server.url}/loki/api/v1/query?{query}", timeout=60).json()
    result = answer["data"]["result"]
    return int(result[0]["value"][1]) if result else 0
