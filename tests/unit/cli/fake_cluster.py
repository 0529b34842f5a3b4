"""An API server in this process that keeps objects, and a kubectl that runs what is to be run in a pod on this machine."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from trainyard.api.names import ATTEMPT_LABEL, CHECKPOINTS_MOUNT, RUN_LABEL, RUN_UID_LABEL, STEP_LABEL
from trainyard.api.schedule.children import merge

NAMESPACE = "lab"
UID = "0123456789abcdef"
CREATED = "2026-03-01T12:00:00Z"


class FakeCluster:
    """Objects by their path. `later` are changes: one is made at each watch, as time goes by elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.refused: dict[str, tuple[int, str]] = {}
        """Part of `METHOD path`: status and message of the answer."""
        self.logs: dict[str, str] = {}
        self.later: list[Callable[[], object]] = []
        self.unknown: set[str] = set()
        """Groups that are not served."""
        self.url = ""
        self._version = 0

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def put(self, path: str, value: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        value.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self.objects[path] = value
        return value

    def run(self, name: str = "runbook", **status: Any) -> dict[str, Any]:
        """A run of that status; `spec` stands beside it."""
        spec = status.pop("spec", {"training": {"method": "SFT", "maxSteps": 300}})
        path = f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/trainingruns/{name}"
        metadata = {
            "name": name,
            "namespace": NAMESPACE,
            "uid": UID,
            "creationTimestamp": CREATED,
            "labels": {"agent": "sre"},
        }
        return self.put(
            path,
            {
                "apiVersion": "trainyard.dev/v1alpha1",
                "kind": "TrainingRun",
                "metadata": metadata,
                "spec": spec,
                "status": status,
            },
        )

    def read(self, name: str = "runbook") -> dict[str, Any]:
        return self.objects[f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/trainingruns/{name}"]

    def pod(
        self, step: str = "train", attempt: int = 1, *, phase: str = "Running", log: str = "", run: str = "runbook"
    ) -> str:
        """A pod of the run; its name."""
        name = f"{run}-{step}-{attempt}-x"
        labels = {RUN_LABEL: run, RUN_UID_LABEL: UID, STEP_LABEL: step, ATTEMPT_LABEL: str(attempt)}
        state = {"Running": {"running": {}}, "Pending": {"waiting": {"reason": "ContainerCreating"}}}.get(
            phase, {"terminated": {}}
        )
        limits = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
        self.put(
            f"/api/v1/namespaces/{NAMESPACE}/pods/{name}",
            {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": NAMESPACE,
                    "uid": f"{name}-uid",
                    "labels": labels,
                    "creationTimestamp": f"2026-03-01T12:0{attempt}:00Z",
                },
                "spec": {
                    "nodeName": "arcanine",
                    "containers": [{"name": "trainer", "image": "trainer:1", "resources": limits}],
                },
                "status": {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]},
            },
        )
        self.logs[name] = log
        return name

    def bodies(self, method: str) -> list[Any]:
        return [body for asked, _, body in self.asked if asked == method]

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        """Status and body; text where the body is no JSON."""
        parts = urlsplit(target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        self.asked.append((method, target, body))
        for part, (code, message) in self.refused.items():
            if part in f"{method} {path}":
                return code, {"kind": "Status", "message": message, "reason": "Forbidden" if code == 403 else "Invalid"}
        if any(path.startswith(f"/apis/{group}") for group in self.unknown):
            return 404, {"message": "the server could not find the requested resource", "reason": "NotFound"}
        if path == "/version":
            return 200, {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
        if path.endswith("selfsubjectaccessreviews"):
            return 201, {"status": {"allowed": body["spec"]["resourceAttributes"]["resource"] != "pods"}}
        if path.endswith("/log"):
            return 200, _since(self.logs[path.split("/")[-2]], query.get("sinceTime", ""))
        if method == "GET" and "watch" in query:
            return 200, self._changes(path, int(query["resourceVersion"] or 0), query)
        if method == "POST":
            return self._create(path, body, query)
        if path in self.objects:
            return self._of_one(method, path, body)
        name = path.rpartition("/")[2]
        if _is_list(path):
            items = [value for place, value in self.objects.items() if _holds(path, place) and _selected(value, query)]
            return 200, {"items": items, "metadata": {"resourceVersion": str(self._version)}}
        return 404, {"message": f'things "{name}" not found', "reason": "NotFound"}

    def _create(self, path: str, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        metadata = body["metadata"]
        metadata.setdefault("name", f"{metadata.get('generateName', '')}abcde")
        if f"{path}/{metadata['name']}" in self.objects:
            return 409, {"message": f'"{metadata["name"]}" already exists', "reason": "AlreadyExists"}
        metadata |= {"namespace": NAMESPACE, "uid": f"uid-of-{metadata['name']}", "creationTimestamp": CREATED}
        if body.get("kind") == "Pod":
            body["status"] = {"phase": "Running"}
        return 201, body if "dryRun" in query else self.put(f"{path}/{metadata['name']}", body)

    def _of_one(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "DELETE":
            self.objects.pop(path)
            return 200, {}
        return 200, self.put(path, merge(self.objects[path], body)) if method == "PATCH" else self.objects[path]

    def _changes(self, path: str, version: int, query: dict[str, str]) -> str:
        if self.later:
            self.later.pop(0)()
        found = [
            value
            for place, value in self.objects.items()
            if _holds(path, place) and _selected(value, query) and int(value["metadata"]["resourceVersion"]) > version
        ]
        return "".join(json.dumps({"type": "MODIFIED", "object": value}) + "\n" for value in found)


def _since(log: str, since: str) -> str:
    return "".join(line for line in log.splitlines(keepends=True) if line[:19] >= since[:19])


def _is_list(path: str) -> bool:
    return re.fullmatch(r"/apis?(/[^/]+)?/v\w+(/namespaces/[^/]+)?/[a-z]+", path) is not None


def _holds(path: str, place: str) -> bool:
    """Also where all namespaces are asked for."""
    kind = path.rpartition("/")[2]
    parts = place.split("/")
    return place.rpartition("/")[0] == path or ("/namespaces/" not in path and parts[-2] == kind)


def _selected(value: dict[str, Any], query: dict[str, str]) -> bool:
    labels = value["metadata"].get("labels") or {}
    wanted = dict(word.split("=", 1) for word in query.get("labelSelector", "").split(",") if word)
    name = re.search(r"metadata\.name=([^,]+)", query.get("fieldSelector", ""))
    return all(labels.get(k) == v for k, v in wanted.items()) and (name is None or value["metadata"]["name"] == name[1])


@contextmanager
def fake_cluster(folder: Path) -> Iterator[FakeCluster]:
    """It runs, and there is a kubeconfig for it."""
    cluster = FakeCluster(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, found = cluster.answer(self.command, self.path, json.loads(text) if text else None)
            content = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
    }
    cluster.kubeconfig.write_text(json.dumps(config))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()


def fake_kubectl(folder: Path, volume: Path, *, pieces: int = 0) -> None:
    """A kubectl that runs what stands after `--` here, with the volume at another place. With `pieces`, the first streams of
    a file break off after so many bytes, without a word."""
    program = folder / "kubectl"
    program.write_text(
        "#!/bin/bash\n"
        f'echo "$@" >> {shlex.quote(str(folder / "calls"))}\n'
        'while [ "$1" != -- ]; do shift; done; shift\n'
        f"words=() mount={CHECKPOINTS_MOUNT} volume={shlex.quote(str(volume))}\n"
        'for word in "$@"; do words+=("${word//"$mount"/$volume}"); done\n'
        f'if [ "${{words[0]}}" = tail ] && [ {pieces} -gt 0 ]; then "${{words[@]}}" | head -c {pieces}; exit 0; fi\n'
        'exec "${words[@]}"\n'
    )
    program.chmod(0o755)
