"""What a source holds now, as a short text: equal texts, equal data. Nothing is downloaded to find out.

inline             its content, which is part of the spec
pvc://, file://    SHA-256 of every file's name and content
s3://              name, ETag and size of every object
http(s)://         ETag, or Last-Modified with the length
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.run import moment, source_of
from trainyard.trainer.data.collect.windows import window_of
from trainyard.trainer.data.sources import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    local_files,
    read_secret,
    request_headers,
    s3_client,
)
from trainyard.trainer.errors import UserError


def identity_of(dataset: Dataset, context: RunContext) -> str | None:
    """The identity; None where the source does not tell. One that cannot be reached does not either: reading it says why."""
    if dataset.inline is not None:
        return "inline"
    if dataset.storage_uri is None:
        return _of_question(dataset, context)
    try:
        match dataset.storage_uri.partition("://")[0]:
            case "s3":
                return _of_objects(dataset, context)
            case "http" | "https":
                return _of_answer(dataset, context)
            case _:
                return _of_files(dataset, context)
    except UserError:
        return None


def _of_question(dataset: Dataset, context: RunContext) -> str | None:
    source = getattr(dataset, source_of(dataset) or "inline")
    if (lookback := getattr(source, "window", None)) is not None:
        window = window_of(lookback, moment(context))
        return json.dumps([source.model_dump(mode="json"), window.start, window.end], sort_keys=True)
    ref = getattr(source, "ref", None) or ""
    if len(ref) == 40 and set(ref) <= set("0123456789abcdef"):
        return json.dumps(source.model_dump(mode="json"), sort_keys=True)
    return None


def _of_files(dataset: Dataset, context: RunContext) -> str:
    whole = hashlib.sha256()
    for file in local_files(dataset, volumes=context.volumes_dir):
        with open(file.path, "rb") as stream:
            whole.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _of_objects(dataset: Dataset, context: RunContext) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(read_secret(dataset, context.secrets_dir))
    bucket, _, key = (dataset.storage_uri or "").removeprefix("s3://").partition("/")
    try:
        if key.endswith("/"):
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            found: list[Any] = [[o["Key"], o["ETag"], o["Size"]] for page in pages for o in page.get("Contents", [])]
        else:
            answer = client.head_object(Bucket=bucket, Key=key)
            found = [[key, answer["ETag"], answer["ContentLength"]]]
    except (BotoCoreError, ClientError, RecursionError, KeyError):  # a store over a folder may know no ETag
        return None
    return json.dumps(sorted(found)) if found else None


def _of_answer(dataset: Dataset, context: RunContext) -> str | None:
    import urllib3

    secret = read_secret(dataset, context.secrets_dir)
    if "url" in secret:
        return None  # it was signed for a GET
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    pool = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=secret.get("ca.crt path"))
    try:
        answer = pool.request("HEAD", dataset.storage_uri or "", headers=request_headers(secret))
    except urllib3.exceptions.HTTPError:
        return None
    if answer.status != 200:
        return None
    tag, changed = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
    if tag is not None and not tag.startswith("W/"):
        return f"etag {tag}"
    length = answer.headers.get("Content-Length")
    return f"modified {changed} {length}" if changed and length else None
