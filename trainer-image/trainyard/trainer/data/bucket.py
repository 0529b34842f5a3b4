"""A bucket that is written to, over the S3 interface: Amazon's, MinIO, versitygw, Ceph, or Google's.

A store that says no will say no again, so that is a fault of the manifest; one that does not answer is tried three times here,
and then left to the operator's longer patience. Of a file that was broken off in the middle nothing is seen, but its parts
stay in the store until they are thrown away, which the next upload of that file does.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trainyard.trainer.data.sources import PAUSES, TRIES, is_unknown
from trainyard.trainer.errors import first_line, invalid_config, source_unavailable

SHA256 = "sha256"
"""Key of an object's metadata, because an ETag is no digest of what was uploaded in parts."""
PART = 16 << 20
"""Bytes of a part, at least; the store takes 10,000 of them."""
PARTS_AT_ONCE = 4
REFUSED = (400, 401, 403, 404, 405)
T = TypeVar("T")


class Changed(Exception):
    """Somebody else has written the object meanwhile."""


@dataclass(frozen=True)
class Stored:
    """An object that is there."""

    size: int
    sha256: str
    """As its uploader has noted it; empty if he has not."""


@dataclass(frozen=True)
class Bucket:
    """One bucket, and how messages call what is written there."""

    client: Any
    name: str
    told: str
    """Field and address."""
    hint: str
    """What to check when it refuses."""

    def find(self, key: str) -> Stored | None:
        """What is under a key."""
        answer = self._or_nothing(lambda: self.client.head_object(Bucket=self.name, Key=key))
        return answer and Stored(int(answer["ContentLength"]), answer.get("Metadata", {}).get(SHA256, ""))

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small object, and the ETag by which to replace just that one."""

        def get() -> tuple[bytes, str]:
            answer = self.client.get_object(Bucket=self.name, Key=key)
            return answer["Body"].read(), str(answer["ETag"])

        return self._or_nothing(get)

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return self.guarded(lambda: [o["Key"] for page in pages for o in page.get("Contents", [])])

    def upload(self, key: str, path: Path, *, sha256: str = "") -> None:
        """Send a file, a large one in parts."""
        from boto3.s3.transfer import TransferConfig

        size = path.stat().st_size
        settings = TransferConfig(
            multipart_threshold=PART, multipart_chunksize=max(PART, size // 9000), max_concurrency=PARTS_AT_ONCE
        )
        more = {"Metadata": {SHA256: sha256}} if sha256 else {}
        if size >= PART:
            self.throw_away_parts(key)
        self.guarded(lambda: self.client.upload_file(str(path), self.name, key, ExtraArgs=more, Config=settings))

    def replace(self, key: str, content: bytes, *, etag: str | None, kind: str = "application/json") -> None:
        """Write a small object: a new one, or in the place of the one with this ETag.

        Raises:
            Changed: there is another one by now.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        more = {"Metadata": {SHA256: hashlib.sha256(content).hexdigest()}, "ContentType": kind}

        def put(**condition: str) -> None:
            self.client.put_object(Bucket=self.name, Key=key, Body=content, **more, **condition)

        def attempt() -> None:
            from botocore.exceptions import ClientError

            try:
                put(**condition)
            except ClientError as error:
                # 404: it was there, and is gone. 409: two at the same moment.
                if _status(error) in (409, 412) or (
                    etag is not None and _status(error) == 404 and _code(error) == "NoSuchKey"
                ):
                    raise Changed from error
                if _status(error) != 501:
                    raise
                put()  # a store without conditions: the last one wins

        self.guarded(attempt)

    def ask_whether_writable(self, key: str) -> None:
        """Begin an upload and give it up: asks for the right to write, and leaves nothing that anybody sees."""

        def attempt() -> None:
            begun = self.client.create_multipart_upload(Bucket=self.name, Key=key)
            if "UploadId" not in begun:  # a web page, for which the client has no error
                raise invalid_config(
                    f"{self.told}: {self.client.meta.endpoint_url} answers, and is no object store", hint=self.hint
                )
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=begun["UploadId"])

        self.guarded(attempt)

    def throw_away_parts(self, key: str) -> None:
        """Of uploads of this key that were never completed. Who may not look leaves them to the store's own rules."""
        from botocore.exceptions import ClientError

        with contextlib.suppress(ClientError):
            # The whole key is given: MinIO lists no others.
            listed = self.client.list_multipart_uploads(Bucket=self.name, Prefix=key)
            for upload in listed.get("Uploads", []):
                if upload["Key"] == key:
                    self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload["UploadId"])

    def guarded(self, call: Callable[[], T]) -> T:
        """Raises UserError: the store refuses (64, never retried) or does not answer (69)."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, SSLError

        last = ""
        for number in range(TRIES):
            try:
                return call()
            except (ClientError, BotoCoreError, Boto3Error, RecursionError) as error:  # the last: redirects without end
                status = 404 if isinstance(error, RecursionError) else _status(error)
                if status in REFUSED:
                    code = _code(error)
                    raise invalid_config(
                        f"{self.told}: the store refuses to write (HTTP {status}){f': {code}' if code else ''}",
                        hint=self.hint,
                    ) from error
                if isinstance(error, SSLError) and "WRONG_VERSION_NUMBER" in str(error):
                    raise invalid_config(
                        f"{self.told}: {self.client.meta.endpoint_url} speaks http, not https",
                        hint="write http:// in the endpoint (the export's field, or AWS_ENDPOINT_URL in the secret of secretRef)",
                    ) from error
                if isinstance(error, SSLError):
                    raise invalid_config(
                        f"{self.told}: the store's certificate is not trusted",
                        hint="put the issuing CA into the secret of secretRef as ca.crt",
                    ) from error
                host = urlsplit(self.client.meta.endpoint_url).hostname or ""
                if not status and is_unknown(host):
                    raise invalid_config(f"{self.told}: the host {host} is unknown", hint=self.hint) from error
                last = first_line(error, 200)
                if number < len(PAUSES):
                    time.sleep(PAUSES[number])
        raise source_unavailable(
            f"{self.told} did not answer in {TRIES} tries: {last}",
            hint="check that the store is up and reachable from the cluster",
        )

    def _or_nothing(self, call: Callable[[], T]) -> T | None:
        from botocore.exceptions import ClientError

        def attempt() -> T | None:
            try:
                return call()
            except ClientError as error:
                if _status(error) == 404 and _code(error) != "NoSuchBucket":
                    return None
                raise

        return self.guarded(attempt)


def _answer(error: BaseException) -> Mapping[str, Any]:
    """What the store said; boto3 wraps it in errors of its own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(response := getattr(seen, "response", None), dict):
            return response
        seen = seen.__cause__ or seen.__context__
    return {}


def _status(error: BaseException) -> int:
    with contextlib.suppress(TypeError, ValueError):
        return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0


def _code(error: BaseException) -> str:
    code = str(_answer(error).get("Error", {}).get("Code", ""))
    return "" if code.isdecimal() else code
