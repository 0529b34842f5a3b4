"""Exports to places outside the cluster, with every field they have; two where fields exclude each other."""

from __future__ import annotations

from typing import Any

STORE: dict[str, Any] = {
    "uri": "s3://models/{agent}/{version}/",
    "latest": True,
    "endpoint": "https://store.example.org",
    "region": "eu-west-1",
    "secretRef": {"name": "store"},
}
REGISTERED: dict[str, Any] = {
    "trackingUri": "https://mlflow.example.org",
    "model": "{agent}-functiongemma",
    "alias": "champion",
    "secretRef": {"name": "mlflow"},
}
COMMIT: dict[str, Any] = {
    "repository": "https://git.example.org/lab/fleet.git",
    "branch": "models/{agent}",
    "branchFrom": "main",
    "path": ".gitops/{agent}/deploy.yaml",
    "yamlPath": "spec.containers[name=vllm].image",
    "value": "{uri}",
    "message": "{agent}: model {version}",
    "author": {"name": "The Bot", "email": "bot@example.org"},
    "secretRef": {"name": "git"},
}
IMAGE: dict[str, Any] = {
    "image": "registry.example.org:5000/lab/{agent}:{version}",
    "alias": "champion",
    "insecure": True,
    "secretRef": {"name": "pull"},
}
_STORE = {"name": "store", "s3": STORE}
_STAGED = {name: value for name, value in REGISTERED.items() if name != "alias"} | {"stage": "Production"}
EACH: tuple[list[dict[str, Any]], ...] = (
    [_STORE],
    [{"name": "registry", "dependsOn": ["store"], "mlflow": REGISTERED}, _STORE],
    [{"name": "registry", "dependsOn": ["store"], "mlflow": _STAGED}, _STORE],
    [{"name": "fleet", "dependsOn": ["store"], "git": COMMIT}, _STORE],
    [{"name": "image", "oci": IMAGE}],
)
"""Each target first, because fields are looked for in the first of a list."""


def _exports(kind: str, fields: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """An export with these fields changed, after one to a bucket."""
    return [
        _STORE,
        {"name": "other", "dependsOn": ["store"], kind: {k: v for k, v in (fields | changes).items() if v is not None}},
    ]


BROKEN: tuple[tuple[str, list[dict[str, Any]], list[dict[str, Any]]], ...] = (
    ("alias and stage are the same", _exports("mlflow", REGISTERED, stage="x"), _exports("mlflow", REGISTERED)),
    *(
        (
            "alias: MLflow keeps latest",
            _exports("mlflow", REGISTERED, alias=bad),
            _exports("mlflow", REGISTERED, alias=good),
        )
        for bad, good in (("latest", "later"), ("Latest", "3"), ("V12", "v3a"), ("previous-x", "before"))
    ),
    (
        "stage: MLflow keeps latest",
        _exports("mlflow", REGISTERED, alias=None, stage="v3"),
        _exports("mlflow", REGISTERED, alias=None, stage="Production"),
    ),
    (
        "mlflow keeps the address of files",
        [_STORE, {"name": "other", "mlflow": REGISTERED}],
        _exports("mlflow", REGISTERED),
    ),
    (
        "alias is the tag of image itself",
        _exports("oci", IMAGE, image="registry.example.org/lab/sre:champion"),
        _exports("oci", IMAGE, image="registry.example.org/lab/sre:the-champion"),
    ),
)
"""The beginning of a rule's message, exports that break it, and some that just do not."""
MALFORMED: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    ("s3.uri", _exports("s3", STORE, uri="s3://Bucket/x")),
    ("s3.uri", _exports("s3", STORE, uri="s3://bucket")),
    ("git.path", _exports("git", COMMIT, path="../x")),
    ("git.path", _exports("git", COMMIT, path="a/./b")),
    ("git.path", _exports("git", COMMIT, path="/etc/passwd")),
    ("git.branch", _exports("git", COMMIT, branch="a..b")),
    ("git.branch", _exports("git", COMMIT, branch="-x")),
    ("git.branchFrom", _exports("git", COMMIT, branchFrom="a/.b")),
    ("oci.image", _exports("oci", IMAGE, image="registry.example.org/lab/sre")),
    ("oci.image", _exports("oci", IMAGE, image="registry.example.org/Lab:v1")),
    ("oci.alias", _exports("oci", IMAGE, alias="-x")),
    ("mlflow.model", _exports("mlflow", REGISTERED, model="a/b")),
    ("mlflow.alias", _exports("mlflow", REGISTERED, alias="a b")),
)
"""The field, and exports in which it is none."""
