"""Copying a dataset version to an S3 bucket.

Files first, manifest.json last: whoever sees the manifest sees a whole version. A version that is there already, by its
manifest, is not sent again; one that was interrupted goes on with the files that are missing or of another size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainyard.api.base import SecretRef
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import PAUSES, TRIES, read_secret, s3_client
from trainyard.trainer.errors import first_line, invalid_config, source_unavailable
from trainyard.trainer.log import say
from trainyard.trainer.volume.commit import MANIFEST

FIELD = "spec.datasetUpload"
T = TypeVar("T")


def put_folder(
    folder: Path, manifest: Mapping[str, Any], address: str, *, secret_ref: SecretRef | None, secrets: Path
) -> int:
    """Upload a committed folder. Returns how many files were sent.

    Raises:
        UserError: the store refuses (64, never retried) or does not answer (69).
    """
    # read_secret speaks of a dataset; this one has no other fields that matter here.
    secret = read_secret(Dataset(name="upload", storage_uri="s3://upload/x", secret_ref=secret_ref), secrets)
    client = s3_client(secret)
    bucket, _, prefix = address.removeprefix("s3://").partition("/")

    def size(key: str) -> int | None:
        from botocore.exceptions import ClientError

        try:
            return int(client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise

    sent = 0
    files = [*sorted(manifest["files"]), MANIFEST]
    if _guarded(lambda: size(f"{prefix}/{MANIFEST}"), address) == (folder / MANIFEST).stat().st_size:
        say(f"the dataset is at {address}/{MANIFEST} already")
        return 0
    for name in files:
        key, path = f"{prefix}/{name}", folder / name
        if name != MANIFEST and _guarded(lambda key=key: size(key), address) == path.stat().st_size:  # type: ignore[misc]
            continue
        _guarded(lambda key=key, path=path: client.upload_file(str(path), bucket, key), address)  # type: ignore[misc]
        sent += 1
    say(f"dataset uploaded: {address}/{MANIFEST} ({sent} files sent)")
    return sent


def _guarded(call: Callable[[], T], address: str) -> T:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    last = ""
    for number in range(TRIES):
        try:
            return call()
        except (ClientError, BotoCoreError, Boto3Error, RecursionError) as error:  # the last: redirects without end
            status = 404 if isinstance(error, RecursionError) else _status(error)
            if status in (400, 401, 403, 404):
                raise invalid_config(
                    f"{FIELD}.storageUri {address}: the store refuses to write (HTTP {status})",
                    hint="check bucket, AWS_ENDPOINT_URL and keys in secretRef; the keys need PutObject and GetObject",
                ) from error
            last = first_line(error, 200)
            if number < len(PAUSES):
                time.sleep(PAUSES[number])
    raise source_unavailable(
        f"{FIELD}.storageUri {address} did not answer in {TRIES} tries: {last}",
        hint="check that the store is up and reachable from the cluster",
    )


def _status(error: BaseException) -> int:
    """HTTP status of what the store said; boto3 wraps it in errors of its own."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            with contextlib.suppress(TypeError, ValueError):
                return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        seen = seen.__cause__ or seen.__context__
    return 0
