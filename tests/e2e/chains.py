"""A tiny model's way to everything that serves it: the chain of the example agent-sre, in seconds, and what its sinks tell of it.

store (bucket, latest.json) -> registry (MLflow, champion) ┐
files (GGUF) -> serve (Ollama)                             ┴-> fleet (MODEL_VERSION in git)
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.e2e import runs
from tests.e2e.kube import Kube, Object
from tests.servers.sinks import PORTS, Sinks
from trainyard.api.manifest import read_documents
from trainyard.controller.kube.resources import SECRETS, SERVICES, Resource

AGENT = "agent-sre"
FILE = "agents/agent.yaml"
FILES: dict[str, str | bytes] = {FILE: "data:\n  MODEL_VERSION: none  # by the training\n"}
KEYS = {"secretRef": {"name": "object-store"}}


def reachable(kube: Kube, space: str, servers: Sinks) -> None:
    """Give the servers names in the namespace, and pods what they need to write there."""
    slices = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
    resources = {"Service": SERVICES, "EndpointSlice": slices, "Secret": SECRETS}
    for one in (*servers.objects(space), *servers.secrets(space, services=space)):
        kube.create(resources[one["kind"]], space, one)


def chain(name: str, space: str, *, steps: int, gates: list[Object] | None = None, tries: int = 3) -> Object:
    """The run; with gates it is compared with the champion."""
    urls = {server: f"http://{server}.{space}.svc:{port}" for server, port in PORTS.items()}
    compared = {"gates": gates, "compareWith": {"mlflow": {"model": AGENT, "alias": "champion"}, **KEYS}}
    exports: list[Object] = [
        {
            "name": "store",
            "s3": {"uri": "s3://models/{agent}/{version}/", "latest": True, "endpoint": urls["s3"], **KEYS},
        },
        {
            "name": "registry",
            "dependsOn": ["store"],
            "mlflow": {"trackingUri": urls["mlflow"], "model": "{agent}", "alias": "champion"},
        },
        {"name": "files", "gguf": {"quantizations": ["f16"], "fileName": "{agent}"}},
        {"name": "serve", "dependsOn": ["files"], "ollama": {"url": urls["ollama"], "model": "{agent}:{version}"}},
        {
            "name": "fleet",
            "dependsOn": ["registry", "serve"],
            "git": {
                "repository": f"{urls['git']}/homelab.git",
                "path": FILE,
                "yamlPath": "data.MODEL_VERSION",
                "value": "{version}",
                "secretRef": {"name": "git-login"},
            },
        },
    ]
    return runs.tiny(
        name,
        training={"maxSteps": steps, "learningRate": 3e-3, "loggingSteps": 10},
        owner={"agent": AGENT},
        tracking={"mlflow": {"trackingUri": urls["mlflow"], "experiment": AGENT}} if gates else None,
        evaluation={"samples": 0, **(compared if gates else {})},
        exports=[{**export, "backoffLimit": tries} for export in exports],
    )


@dataclass(frozen=True)
class Told:
    """What the sinks tell, each by its own client."""

    servers: Sinks

    def latest(self) -> str:
        """The version that is in use in the bucket."""
        body = self.servers.store().get_object(Bucket="models", Key=f"{AGENT}/latest.json")["Body"].read()
        return str(json.loads(body)["version"])

    def in_git(self) -> str:
        """The version that the branch has."""
        document = read_documents(self.servers.git("show", f"main:{FILE}"))[0].value
        return str(document["data"]["MODEL_VERSION"])

    def commits(self) -> list[str]:
        """Subjects, oldest first."""
        return self.servers.git("log", "--reverse", "--format=%s", "main").splitlines()

    def registered(self) -> tuple[dict[str, str], dict[str, str]]:
        """In MLflow: model version by number, and number by alias."""
        found = self._get("mlflow", f"/api/2.0/mlflow/registered-models/get?name={AGENT}")["registered_model"]
        query = f"/api/2.0/mlflow/model-versions/search?filter=name%3D%27{AGENT}%27&max_results=200"
        versions = self._get("mlflow", query).get("model_versions", [])
        by_number = {str(one["version"]): str(one["source"]).rstrip("/").rpartition("/")[2] for one in versions}
        return by_number, {one["alias"]: str(one["version"]) for one in found.get("aliases", [])}

    def champion(self) -> str:
        """The model version that the alias names."""
        versions, aliases = self.registered()
        return versions[aliases["champion"]]

    def served(self) -> dict[str, str]:
        """In Ollama: digest by model version."""
        models = self._get("ollama", "/api/tags")["models"]
        return {one["name"].partition(":")[2]: str(one["digest"]) for one in models}

    def stored(self, version: str) -> dict[str, str]:
        """In the bucket: digest of each file in the version's folder, as what lies there has it, not as the manifest says."""
        store, prefix = self.servers.store(), f"{AGENT}/{version}/"
        listed = store.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
        content = {o["Key"]: store.get_object(Bucket="models", Key=o["Key"])["Body"].read() for o in listed}
        return {key.removeprefix(prefix): hashlib.sha256(body).hexdigest() for key, body in content.items()}

    def in_use(self) -> tuple[str, str, str]:
        """Of bucket, registry and git; the same version three times, unless something is half done."""
        return self.latest(), self.champion(), self.in_git()

    def _get(self, server: str, path: str) -> Any:
        with urllib.request.urlopen(self.servers.urls[server] + path, timeout=60) as answer:
            return json.load(answer)
