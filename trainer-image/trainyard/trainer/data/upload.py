"""Copying a dataset version to an S3 bucket.

Files first, manifest.json last: whoever sees the manifest sees a whole version. A version that is there already, by its
manifest, is not sent again; one that was interrupted goes on with the files that are missing or of another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.api.base import SecretRef
from trainyard.trainer.data.bucket import Bucket
from trainyard.trainer.data.sources import s3_client, secret_values
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import MANIFEST

FIELD = "spec.datasetUpload"


def put_folder(
    folder: Path, manifest: Mapping[str, Any], address: str, *, secret_ref: SecretRef | None, secrets: Path
) -> int:
    """Upload a committed folder. Returns how many files were sent.

    Raises:
        UserError: the store refuses (64, never retried) or does not answer (69).
    """
    name, _, prefix = address.removeprefix("s3://").partition("/")
    bucket = Bucket(
        client=s3_client(secret_values(secret_ref, secrets, told=FIELD)),
        name=name,
        told=f"{FIELD}.storageUri {address}",
        hint="check bucket, AWS_ENDPOINT_URL and keys in secretRef; the keys need PutObject and GetObject",
    )

    def is_there(file: str) -> bool:
        found = bucket.find(f"{prefix}/{file}")
        return found is not None and found.size == (folder / file).stat().st_size

    if is_there(MANIFEST):
        say(f"the dataset is at {address}/{MANIFEST} already")
        return 0
    missing = [file for file in sorted(manifest["files"]) if not is_there(file)]
    for file in [*missing, MANIFEST]:
        bucket.upload(f"{prefix}/{file}", folder / file)
    say(f"dataset uploaded: {address}/{MANIFEST} ({len(missing) + 1} files sent)")
    return len(missing) + 1
