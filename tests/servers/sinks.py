"""All that a chain of exports ends in, as real servers that pods reach by names of the cluster.

They are processes of this machine on the local cluster's address, because there are no images of them here. A Service with
an endpoint of its own gives each a name and a fixed port, so manifests read as they would with servers in pods.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers import git_server, ollama_server, restartable, source_servers

ADDRESS = "10.91.0.1"
"""The machine's address on the local cluster's network."""
KEYS = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "correct-horse"}
LOGIN = {"username": "bot", "password": "correct-horse"}
PORTS = {"git": 80, "s3": 7070, "mlflow": 5000, "ollama": 11434}
REPOSITORY = "homelab"


@dataclass
class Sinks:
    """The servers that were asked for, by name."""

    urls: dict[str, str]
    buckets: Path
    repositories: Path

    def git(self, *words: str) -> str:
        """Git in the repository that the server has."""
        return git_server.git(self.repositories / f"{REPOSITORY}.git", *words)

    def store(self) -> Any:
        """A client of the bucket's server."""
        import boto3

        keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
        return boto3.client("s3", endpoint_url=self.urls["s3"], region_name="us-east-1", **keys)

    def objects(self, namespace: str) -> list[dict[str, Any]]:
        """A Service and its endpoint for each server."""
        return [part for name, url in self.urls.items() for part in _service(namespace, name, url)]

    def secrets(self, namespace: str, *, services: str) -> list[dict[str, Any]]:
        """What pods in a namespace need to write there; `services` is where the Services are."""
        keys = {**KEYS, "AWS_ENDPOINT_URL": f"http://s3.{services}.svc:{PORTS['s3']}"}
        return [_secret(namespace, "object-store", keys), _secret(namespace, "git-login", LOGIN)]


@contextmanager
def serving(
    folder: Path,
    *,
    wanted: tuple[str, ...] = tuple(PORTS),
    buckets: tuple[str, ...] = ("models", "bases"),
    files: dict[str, str | bytes] | None = None,
    host: str = ADDRESS,
) -> Iterator[Sinks]:
    """Start them, with empty buckets and one repository that holds `files`."""
    data, repositories, work = folder / "s3", folder / "git", folder / "work"
    for bucket in buckets:
        (data / bucket).mkdir(parents=True)
    repositories.mkdir(parents=True)
    git_server.commit(work, files or {"README.md": "homelab\n"})
    git_server.git(folder, "clone", "--quiet", "--bare", str(work), str(repositories / f"{REPOSITORY}.git"))
    shutil.rmtree(work)
    urls: dict[str, str] = {}
    with ExitStack() as stack:
        if "git" in wanted:
            login = ":".join(LOGIN.values())
            urls["git"] = stack.enter_context(git_server.serving(repositories, login=login, host=host)).url
        if "s3" in wanted:
            access, secret = KEYS.values()
            urls["s3"] = stack.enter_context(
                source_servers.versitygw(data, access=access, secret=secret, host=host)
            ).url
        for name, start in (("mlflow", restartable.mlflow), ("ollama", ollama_server.ollama)):
            if name in wanted:
                (folder / name).mkdir()
                urls[name] = stack.enter_context(start(folder / name, host=host)).url
        yield Sinks(urls, data, repositories)


def _service(namespace: str, name: str, url: str) -> Iterator[dict[str, Any]]:
    address = urlsplit(url)
    here = {"name": name, "namespace": namespace}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": here,
        "spec": {"ports": [{"name": "http", "port": PORTS[name], "targetPort": address.port}]},
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**here, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": address.port}],
        "endpoints": [{"addresses": [address.hostname]}],
    }


def _secret(namespace: str, name: str, values: dict[str, str]) -> dict[str, Any]:
    here = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": here, "stringData": values}
