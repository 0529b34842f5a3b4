"""The run's Secret: the manifest that the trainer reads, and the token with which it reports."""

import hashlib
import json

from trainyard.api import API_VERSION
from trainyard.api.names import (
    GIT_COMMIT_LABEL,
    JOB_TOKEN_FIELD,
    SPEC_HASH_ANNOTATION,
    config_secret_name,
    job_token,
)
from trainyard.controller.manifests.metadata import Object, RunRef, child_labels, owner_reference


def run_file(run: RunRef) -> str:
    """The TrainingRun as the trainer reads it; the same form works without Kubernetes."""
    metadata: Object = {"name": run.name, "namespace": run.namespace, "uid": run.uid}
    if run.created:
        metadata["creationTimestamp"] = run.created
    if commit := run.labels.get(GIT_COMMIT_LABEL):
        metadata["labels"] = {GIT_COMMIT_LABEL: commit}
    manifest = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": run.raw_spec}
    return json.dumps(manifest, separators=(",", ":"), sort_keys=True)


def config_hash(run: RunRef, *, token: str) -> str:
    """Tells whether the Secret still says what it should. Of the token it shows nothing: a digest of 43 random characters."""
    return _hash(run_file(run), _job_token(run, token))


def _hash(file: str, token: str) -> str:
    return hashlib.sha256(f"{token}\n{file}".encode()).hexdigest()[:16]


def _job_token(run: RunRef, token: str) -> str:
    return job_token(token, run.namespace, run.name, run.uid)


def config_secret(run: RunRef, *, token: str) -> Object:
    """A Secret because of the token; nothing in it but the token is secret."""
    file, of_job = run_file(run), _job_token(run, token)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": config_secret_name(run.name),
            "namespace": run.namespace,
            "labels": child_labels(run),
            "annotations": {SPEC_HASH_ANNOTATION: _hash(file, of_job)},
            "ownerReferences": [owner_reference(run)],
        },
        "type": "Opaque",
        "stringData": {"run.json": file, "token": token, JOB_TOKEN_FIELD: of_job},
    }
