"""A model folder, or one file of a model, from a bucket or a web server.

A bucket is listed. A web server cannot be: there the address is an archive (.tar, .tar.gz, .tgz), a GGUF file, or a folder,
of which the files with the usual names are asked for, the weights by their index. Of a folder only what a model is read from is
taken (`origin.py`): nothing that would have to be unpickled or run.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from trainyard.api.addresses import told
from trainyard.trainer.data.sources import (
    CONNECT_TIMEOUT,
    PAUSES,
    READ_TIMEOUT,
    TRIES,
    Unavailable,
    is_unknown,
    reason,
    request_headers,
    s3_client,
)
from trainyard.trainer.errors import UserError, invalid_config, source_unavailable, storage
from trainyard.trainer.log import say
from trainyard.trainer.volume.origin import MODEL_FILES
from trainyard.trainer.volume.weights import INDEX, SINGLE

FIELD = "spec.model.storageUri"
SECRET = "spec.model.secretRef"
ARCHIVES = (".tar", ".tar.gz", ".tgz")
NAMES = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "chat_template.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "README.md"),
)
"""Files beside configuration and weights, asked for on a web server; each may be absent."""
MOST_FILES = 5000
SMALL = 64_000_000
"""Bytes of a file that is read as a whole."""
BLOCK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """What lies at an address. `identity` is the same for the same bytes; empty where the server does not tell."""

    identity: str
    fetch: Callable[[Path], None]
    """Puts it into a folder."""


def look(uri: str, secret: Mapping[str, str]) -> Listed:
    """Raises UserError: nothing is there, access is refused, or nobody answers."""
    return _bucket(uri, secret) if uri.startswith("s3://") else _web(uri, secret)


def is_wanted(name: str) -> bool:
    """Whether a file of a model's folder is read at all."""
    return "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)


def _digest(value: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(value).encode()).hexdigest()}"


def _check_room(folder: Path, size: int, uri: str) -> None:
    if size > (free := shutil.disk_usage(folder).free):
        raise storage(
            f"{uri} has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            hint="raise the size of spec.storage.cache, or of spec.storage.checkpoints where there is no cache",
        )


# ---- a bucket


def _mark(about: Mapping[str, Any]) -> str:
    """What changes with an object. A store over a folder has no ETag of a file that was not written through it."""
    return str(about.get("ETag") or about.get("LastModified") or "")


def _bucket(uri: str, secret: Mapping[str, str]) -> Listed:
    client = s3_client(dict(secret))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    prefix = key if key.endswith((".gguf", "/")) else f"{key}/"

    def listing() -> list[tuple[str, int, str]]:
        if prefix.endswith(".gguf"):
            head = client.head_object(Bucket=bucket, Key=key)
            return [(key, int(head["ContentLength"]), _mark(head))]
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = []
        for page in pages:
            for entry in page.get("Contents", []):
                if is_wanted(entry["Key"].removeprefix(prefix)):
                    found.append((entry["Key"], int(entry["Size"]), _mark(entry)))
            if len(found) > MOST_FILES:
                raise invalid_config(
                    f"{FIELD} {uri} has more than {MOST_FILES} files", hint="name the model's own prefix"
                )
        return sorted(found)

    files = _asked(listing, client, uri, secret)
    names = {entry[0].removeprefix(prefix) for entry in files}
    if not prefix.endswith(".gguf") and "config.json" not in names:
        raise invalid_config(
            f"{FIELD} {uri}: there is no config.json below that prefix"
            + (f" (it has {', '.join(sorted(names)[:5])})" if names else ""),
            hint="name the prefix under which the model's files lie; check AWS_ENDPOINT_URL",
        )

    def fetch(folder: Path) -> None:
        _check_room(folder, sum(size for _, size, _ in files), uri)
        for name, size, _ in files:
            say(f"{uri}: {PurePosixPath(name).name}, {size / 1e6:.1f} MB")

            def download(name: str = name) -> None:
                body = client.get_object(Bucket=bucket, Key=name)["Body"]
                _write(folder / PurePosixPath(name).name, body.iter_chunks(BLOCK))

            _asked(download, client, uri, secret)

    return Listed(_digest(files), fetch)


def _asked(call: Callable[[], T], client: Any, uri: str, secret: Mapping[str, str]) -> T:
    from botocore.exceptions import BotoCoreError, ClientError

    def attempt() -> T:
        try:
            return call()
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("NoSuchBucket", "NoSuchKey", "404") or status == 404:
                raise _absent(uri) from error
            if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
                status = 403
            _check_status(uri, status, secret)
            raise Unavailable(code or str(status)) from error
        except RecursionError as error:  # the client is redirected to where it came from
            raise _absent(uri) from error
        except BotoCoreError as error:
            _check_host(uri, urlsplit(client.meta.endpoint_url).hostname or "", error)
            raise Unavailable(reason(error)) from error

    return _tried(attempt, uri)


# ---- a web server


def _web(uri: str, secret: Mapping[str, str]) -> Listed:
    parts = urlsplit(uri)
    name = PurePosixPath(parts.path).name
    if name.endswith((".gguf", *ARCHIVES)):
        head = _tried(lambda: _head(uri, secret), uri)

        def fetch_file(folder: Path) -> None:
            if name.endswith(".gguf"):
                _download(uri, folder / name, secret)
                return
            archive = folder / f".{name}"
            _download(uri, archive, secret)
            extract(archive, folder, uri)
            archive.unlink()

        return Listed(_digest(head) if head else "", fetch_file)

    def at(file: str) -> str:
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{file}"))

    if _tried(lambda: _get(at("config.json"), secret), uri) is None:
        raise _absent(uri, "it has no config.json")
    shards = _shards(_tried(lambda: _get(at(INDEX), secret), uri), uri)
    heads = [_tried(lambda file=file: _head(at(file), secret), uri) for file in ("config.json", *shards)]  # type: ignore[misc]

    def fetch_folder(folder: Path) -> None:
        for file in ("config.json", *shards, *([INDEX] if shards != [SINGLE] else []), *NAMES):
            _download(at(file), folder / file, secret, optional=file in NAMES or file in shards)

    return Listed(_digest(heads) if all(heads) else "", fetch_folder)


def _shards(index: bytes | None, uri: str) -> list[str]:
    if index is None:
        return [SINGLE]
    try:
        names = sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise invalid_config(f"{FIELD} {uri}: {INDEX} is no index of weights", hint="check the files") from error
    if odd := [name for name in names if not isinstance(name, str) or not is_wanted(name)]:
        raise invalid_config(
            f"{FIELD} {uri}: {INDEX} names {str(odd[0])[:100]!r}", hint="it may name files beside it only"
        )
    return names


def extract(archive: Path, folder: Path, uri: str) -> None:
    """The model's files out of an archive, without the folders around them.

    Raises:
        UserError: it is damaged, holds no model or several, or has more than there is room for.
    """
    limit = shutil.disk_usage(folder).free
    where: set[str] = set()
    try:
        with tarfile.open(archive) as opened:
            for number, member in enumerate(opened):
                path = PurePosixPath(member.name)
                if number >= MOST_FILES:
                    raise invalid_config(f"{FIELD} {uri} has more than {MOST_FILES} files", hint="pack the model alone")
                if not member.isfile() or not is_wanted(path.name):
                    continue
                where.add(str(path.parent))
                limit -= member.size
                if limit < 0 or len(where) > 1:
                    told_why = (
                        "has more than there is room for" if limit < 0 else f"holds files in {len(where)} folders"
                    )
                    raise invalid_config(f"{FIELD} {uri} {told_why}", hint="pack one model's folder alone")
                source = opened.extractfile(member)
                assert source is not None
                with source, open(folder / path.name, "wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise invalid_config(f"{FIELD} {uri} is no archive that can be read: {error}", hint="pack it again") from error
    if not (folder / "config.json").is_file():
        raise invalid_config(f"{FIELD} {uri} holds no config.json", hint="pack a model's folder")


@contextlib.contextmanager
def _asking(method: str, url: str, secret: Mapping[str, str]) -> Iterator[Any]:
    import urllib3
    from urllib3.util import Retry

    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT), ca_certs=secret.get("ca.crt path")
    )
    follow = Retry(total=5, connect=0, read=0, status=0, other=0, redirect=5)
    try:
        # Credentials are dropped on the way to another host.
        response = pool.request(
            method, url, headers=request_headers(dict(secret)), preload_content=False, retries=follow
        )
        with response:
            yield response
    except urllib3.exceptions.HTTPError as error:
        _check_host(url, urlsplit(url).hostname or "", error)
        if isinstance(error, urllib3.exceptions.SSLError) or "CERTIFICATE" in str(error).upper():
            raise invalid_config(
                f"{FIELD} {told(url)}: the server's certificate is not trusted",
                hint=f"put the issuing CA into the secret of {SECRET} as ca.crt",
            ) from error
        raise Unavailable(reason(error)) from error


def _head(url: str, secret: Mapping[str, str]) -> list[str]:
    """What tells one version of a file from another; nothing where the server does not say."""
    with _asking("HEAD", url, secret) as response:
        if response.status >= 300:
            if response.status not in (404, 405, 501):
                _check_status(url, response.status, secret)
            return []
        marks = [response.headers.get(name, "") for name in ("ETag", "Last-Modified")]
        return [*marks, response.headers.get("Content-Length", "")] if any(marks) else []


def _get(url: str, secret: Mapping[str, str]) -> bytes | None:
    """A small file; None if it is not there."""
    with _asking("GET", url, secret) as response:
        if response.status in (404, 410):
            return None
        _check_status(url, response.status, secret)
        content: bytes = response.read(SMALL)
        return content


def _download(url: str, file: Path, secret: Mapping[str, str], *, optional: bool = False) -> None:
    def attempt() -> None:
        with _asking("GET", url, secret) as response:
            if response.status in (404, 410):
                if optional:
                    return
                raise _absent(url)
            _check_status(url, response.status, secret)
            length = int(response.headers.get("Content-Length") or 0)
            _check_room(file.parent, length, told(url))
            _write(file, response.stream(BLOCK))
            if length and file.stat().st_size != length:
                raise Unavailable(f"{file.stat().st_size} of {length} bytes came")

    _tried(attempt, url)


# ---- both


def _write(file: Path, blocks: Iterator[bytes]) -> None:
    with open(file, "wb") as target:
        for block in blocks:
            target.write(block)


def _tried(attempt: Callable[[], T], uri: str) -> T:
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except Unavailable as error:
            if number == TRIES:
                raise source_unavailable(
                    f"{FIELD} {uri} did not answer in {TRIES} tries: {error}",
                    hint="check that the server is up and reachable from the cluster",
                ) from error
            say(f"{told(uri)}: {error}; trying again")
            time.sleep(PAUSES[number - 1])
    raise AssertionError("unreachable")


def _absent(uri: str, why: str = "nothing is there") -> UserError:
    return invalid_config(f"{FIELD} {uri}: {why}", hint="check the address, and what the server calls the files")


def _check_status(uri: str, status: int, secret: Mapping[str, str]) -> None:
    if 0 < status < 300:
        return
    if status in (401, 403):
        advice = f"check the values in {SECRET}" if secret else f"give {SECRET} with the credentials"
        raise invalid_config(f"{FIELD} {uri}: access is refused (HTTP {status})", hint=advice)
    if status in (0, 408, 429) or status >= 500:
        raise Unavailable(f"HTTP {status}")
    raise invalid_config(f"{FIELD} {uri}: HTTP {status}", hint="check the address")


def _check_host(uri: str, host: str, error: BaseException) -> None:
    if is_unknown(host):
        raise invalid_config(f"{FIELD} {uri}: the host {host} is unknown", hint="check it for typing errors") from error
