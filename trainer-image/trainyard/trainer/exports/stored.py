"""A model as a folder of a bucket that is whole or is none, and never becomes another one.

    weights, tokenizer, ...  ->  manifest.json, last of all, and only where there is none

Who reads the manifest first, and then the files that it names, has a whole model. What is there already, by its digest, is not
sent again. A folder that holds another model is left alone: what has been handed out under a name stays what it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trainyard.trainer.data.bucket import Bucket, Changed
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports.package import Package
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import MANIFEST

MANIFEST_VERSION = 1


def put(bucket: Bucket, prefix: str, package: Package, facts: Mapping[str, Any]) -> int:
    """Make the folder `prefix` (it ends with a slash) of these files. Returns how many were sent.

    Raises:
        UserError: there is another model; the store refuses, or does not answer.
    """
    if (found := manifest_at(bucket, prefix)) is not None:
        _insist(bucket, found, package)
        say(f"{bucket.told}: is there already")
        return 0
    names = {prefix + file.name for file in package.files}
    if foreign := sorted(set(bucket.keys(prefix)) - names):
        raise invalid_config(
            f"{bucket.told}: holds {foreign[0]} and {len(foreign) - 1} more that are not of this model, and no {MANIFEST}",
            hint="put {version} or {digest} into uri, or remove what is there",
        )
    sent = 0
    for file in package.files:
        stored = bucket.find(prefix + file.name)
        if stored is None or (stored.size, stored.sha256) != (file.size, file.sha256):
            bucket.upload(prefix + file.name, file.path, sha256=file.sha256)
            sent += 1
    try:
        bucket.replace(prefix + MANIFEST, _encoded(manifest_of(package, facts)), etag=None)
    except Changed:
        _insist(bucket, manifest_at(bucket, prefix) or {}, package)
    return sent + 1


def manifest_at(bucket: Bucket, prefix: str) -> dict[str, Any] | None:
    """What the folder says it holds; None where there is no whole one."""
    found = bucket.read(prefix + MANIFEST)
    if found is None:
        return None
    try:
        value = json.loads(found[0])
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def manifest_of(package: Package, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the same model from the same run."""
    files = {file.name: {"size": file.size, "sha256": file.sha256} for file in package.files}
    return {"version": MANIFEST_VERSION, "digest": package.digest, **facts, "files": files}


def _insist(bucket: Bucket, found: Mapping[str, Any], package: Package) -> None:
    if found.get("digest") != package.digest:
        raise invalid_config(
            f"{bucket.told}: holds another model ({str(found.get('digest') or 'without a digest')[:19]}, "
            f"run {found.get('run') or 'unknown'}), and what is stored under a name stays",
            hint="put {version}, {timestamp} or {digest} into uri",
        )


def _encoded(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
