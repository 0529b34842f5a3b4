"""A few requests to the API server and to health endpoints, without starting kubectl for each."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 5.0
_NO_PROXY = urllib.request.ProxyHandler({})


class Api:
    """The API server of the cluster that a kubeconfig of ours names, as the user in it."""

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._server: str = cluster["server"]
        context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as both:
            both.write(_decode(user["client-certificate-data"]) + _decode(user["client-key-data"]))
            both.flush()
            context.load_cert_chain(both.name)
        self._opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=context))

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at the path. OSError where there is no answer or not a good one."""
        with self._opener.open(self._server + path, timeout=TIMEOUT_SECONDS) as answer:
            result: dict[str, Any] = json.load(answer)
            return result

    def merge(self, path: str, patch: Mapping[str, Any]) -> None:
        """JSON merge patch."""
        request = urllib.request.Request(
            self._server + path,
            method="PATCH",
            data=json.dumps(patch).encode(),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        with self._opener.open(request, timeout=TIMEOUT_SECONDS):
            return

    def is_ready(self) -> bool:
        try:
            with self._opener.open(self._server + "/readyz", timeout=TIMEOUT_SECONDS) as answer:
                return bool(answer.read() == b"ok")
        except OSError:
            return False

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except OSError:
            return False
        return True


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()


def answers(url: str) -> bool:
    """Whether a local health endpoint says 200; its certificate, if any, is its own and not checked."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=unchecked))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def node_is_ready(node: Mapping[str, Any], *, since: float = 0.0) -> bool:
    """Whether a Node object has the condition Ready=True, said at or after `since` (seconds since the epoch)."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = (c for c in conditions if c["type"] == "Ready" and c["status"] == "True")
    return any(datetime.fromisoformat(c["lastHeartbeatTime"]).timestamp() >= since for c in ready)


def allocatable(node: Mapping[str, Any], resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, "0"))
