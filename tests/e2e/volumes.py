"""What lies on a run's volume, read from the machine: the local cluster's volumes are folders on its disk."""

import hashlib
from pathlib import Path

from tests.e2e.kube import VOLUMES, Found, Kube
from trainyard.api import names
from trainyard.controller.kube.resources import PVCS


def folder(kube: Kube, namespace: str, claim: str) -> Path:
    """The folder behind a claim."""
    bound = kube.need(PVCS, namespace, claim)["spec"]["volumeName"]
    spec = kube.need(VOLUMES, None, bound)["spec"]
    return Path((spec.get("local") or spec["hostPath"])["path"])


def work_folder(kube: Kube, run: Found) -> Path:
    """The run's own folder on its checkpoint volume."""
    metadata, spec = run["metadata"], run["spec"]
    claim = spec.get("storage", {}).get("checkpoints", {}).get("claimName") or names.checkpoints_claim_name(
        metadata["name"]
    )
    place = names.work_dir(metadata["name"], metadata["uid"], mount="").lstrip("/")
    return folder(kube, metadata["namespace"], claim) / place


def weights(kube: Kube, run: Found) -> str:
    """sha256 of the final model's weights."""
    files = sorted((work_folder(kube, run) / "model").glob("*.safetensors"))
    assert files, f"run {run['metadata']['name']} left no weights in {work_folder(kube, run) / 'model'}"
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
