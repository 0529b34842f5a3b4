"""Getting a dataset's files: from a mounted volume, the image, an S3 bucket, or a web server.

Everything becomes a list of local files. What lies on a volume is read in place; what comes over the network is written
into a staging folder first, so that readers can seek and a dropped connection costs one retry instead of the whole step.

A source that says no (401, 403, 404, an unknown host) will say no again, so that is a fault of the manifest. One that
does not answer is tried three times within about ten seconds and then left to the operator's own, longer patience.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from trainyard.api.addresses import keep_secret
from trainyard.api.base import SecretRef
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.errors import UserError, first_line, invalid_config, invalid_data, source_unavailable
from trainyard.trainer.log import say
from trainyard.trainer.volume.claims import Bounds, bounds_of

TRIES = 3
PAUSES = (1.0, 3.0)
"""Seconds between the tries."""
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 20.0
EXPIRED = frozenset({400, 401, 403, 410})
"""What stores answer to an address whose signature is no longer valid."""
MOST_FILES = 200_000
DATA_SUFFIXES = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
}
# fmt: off
TEXT_SUFFIXES = frozenset((
    ".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".tex", ".html", ".htm", ".xml", ".log",
    ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".tf", ".hcl", ".nix", ".dockerfile", ".mk", ".cmake",
    ".py", ".pyi", ".go", ".rs", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".kt", ".scala", ".cs", ".swift",
    ".js", ".mjs", ".ts", ".tsx", ".jsx", ".css", ".vue", ".svelte", ".sh", ".bash", ".rb", ".php", ".pl", ".lua",
    ".sql", ".proto", ".r", ".jl", ".hs", ".ml", ".ex", ".exs", ".erl", ".clj", ".jinja", ".j2", ".tpl",
))
# fmt: on
T = TypeVar("T")


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `name` is what a user knows it by; messages say that, never a staging path."""

    path: Path
    name: str


class Unavailable(Exception):
    """This try failed in a way that another one may not."""


def fetch(dataset: Dataset, *, volumes: Path, secrets: Path, staging: Path) -> list[SourceFile]:
    """The files behind `storageUri`.

    Raises:
        UserError: nothing is there (65), or nobody answers (69).
    """
    uri = dataset.storage_uri or ""
    scheme, _, rest = uri.partition("://")
    secret = read_secret(dataset, secrets)
    match scheme:
        case "file" | "pvc":
            return local_files(dataset, volumes=volumes)
        case "http" | "https":
            return [_download_http(dataset, uri, secret, staging)]
        case "s3":
            bucket, _, key = rest.partition("/")
            return _download_s3(dataset, bucket, key, secret, staging)
        case "hf":
            return _from_hub(dataset, uri, secret)
    raise invalid_data(
        f"dataset {dataset.name}: {uri}: unknown scheme {scheme}", hint="there are file, pvc, http, https, s3 and hf"
    )


def local_files(dataset: Dataset, *, volumes: Path) -> list[SourceFile]:
    """The files behind a `file://` or `pvc://` address.

    Raises:
        UserError: nothing is there.
    """
    uri = dataset.storage_uri or ""
    scheme, _, rest = uri.partition("://")
    bounds = bounds_of(uri, volumes)
    if scheme == "file":
        return _local(dataset, Path(rest), uri, bounds)
    claim, _, path = rest.partition("/")
    if not (volumes / claim).is_dir():
        raise invalid_data(
            f"dataset {dataset.name}: {uri}: claim {claim} is not mounted at {volumes / claim}",
            hint="locally, pass --volume CLAIM=FOLDER; in a cluster the operator mounts it",
        )
    return _local(dataset, volumes / claim / path.lstrip("/"), uri, bounds)


def _from_hub(dataset: Dataset, uri: str, secret: dict[str, str]) -> list[SourceFile]:
    """Files of a dataset's repository: the path that the address names, or all that can be read."""
    from trainyard.trainer.volume.origin import from_hub, revision_of

    owner, _, rest = uri.removeprefix("hf://").partition("/")
    name, _, path = rest.partition("/")
    name, _, revision = name.partition("@")
    wanted = (
        [path, f"{path.rstrip('/')}/*"]
        if path
        else [f"*{suffix}{gz}" for suffix in DATA_SUFFIXES for gz in ("", ".gz")]
    )
    token = secret.get("token") or secret.get("HF_TOKEN")
    field = f"spec.datasets[{dataset.name}].secretRef"
    folder = from_hub(f"{owner}/{name}", revision or None, uri, token, wanted=wanted, field=field, kind="dataset")
    # Files of a snapshot are links to the repository's folder of blobs.
    repository = Bounds(folder.parents[1], "the repository in the cache") if revision_of(folder) else None
    found = _local(dataset, folder / path, uri, repository)
    return [SourceFile(file.path, file.path.relative_to(folder).as_posix()) for file in found]


def format_of(file: SourceFile, file_format: str) -> str | None:
    """How to read a file: as the dataset says, or by its name; None if the name does not tell."""
    if file_format != "Auto":
        return file_format
    name = PurePosixPath(file.name.lower().removesuffix(".gz"))
    if name.suffix in DATA_SUFFIXES:
        return DATA_SUFFIXES[name.suffix]
    known = name.suffix in TEXT_SUFFIXES or name.name in {"dockerfile", "makefile", "readme", "license"}
    return "Text" if known else None


def _local(dataset: Dataset, path: Path, uri: str, bounds: Bounds | None) -> list[SourceFile]:
    """One file, every readable file below a folder, or every file that matches a pattern; sorted by name."""
    if ".." in path.parts:
        raise invalid_data(f"dataset {dataset.name}: {uri} contains ..", hint="give the path without it")
    if bounds is not None:
        bounds.check([path], told=f"dataset {dataset.name}: {uri}", invalid=invalid_data)
    if path.is_file():
        found = [path]
        if format_of(SourceFile(path, path.name), dataset.file_format) is None:
            raise invalid_data(
                f"dataset {dataset.name}: the name of {uri} does not tell how to read it",
                hint="set fileFormat to JSONL, JSON, CSV, Parquet or Text",
            )
    elif path.is_dir():
        found = [f for f in sorted(path.rglob("*")) if f.is_file()]
    elif any(c in str(path) for c in "*?["):
        magic = next(i for i, part in enumerate(path.parts) if any(c in part for c in "*?["))
        root = Path(*path.parts[:magic])
        found = sorted(f for f in root.glob(str(Path(*path.parts[magic:]))) if f.is_file())
    else:
        folder = next((p for p in path.parents if p.exists()), None)
        near = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) if folder and folder.is_dir() else ""
        raise invalid_data(
            f"dataset {dataset.name}: {uri} does not exist",
            hint=f"{folder} has: {near}" if near else "check the path",
        )
    visible = [f for f in found if not any(part.startswith(".") for part in f.parts[len(path.parts) - 1 :])]
    files = [SourceFile(f, str(f) if f != path else PurePosixPath(urlsplit(uri).path).name) for f in visible]
    readable = [f for f in files if format_of(f, dataset.file_format) is not None]
    if not readable:
        raise invalid_data(
            f"dataset {dataset.name}: {uri} has no file that can be read ({len(files)} files looked at)",
            hint="known are .jsonl, .json, .csv, .tsv, .parquet and text; for other names set fileFormat",
        )
    if bounds is not None:
        bounds.check((f.path for f in readable), told=f"dataset {dataset.name}: {uri}", invalid=invalid_data)
    if len(readable) > MOST_FILES:
        raise invalid_data(
            f"dataset {dataset.name}: {uri} has {len(readable)} files, more than {MOST_FILES}",
            hint="put the records into fewer, larger files",
        )
    if len(readable) < len(files):
        say(f"dataset {dataset.name}: {len(files) - len(readable)} files of unknown kind are passed over")
    return readable


def _download_http(dataset: Dataset, uri: str, secret: dict[str, str], staging: Path) -> SourceFile:
    import urllib3

    # A signed address comes from the Secret, and is told nowhere; storageUri says what it leads to.
    address = signed_address(dataset, secret) or uri
    parts = urlsplit(address)
    headers = request_headers(secret)
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    pool = urllib3.PoolManager(timeout=timeout, retries=False, ca_certs=secret.get("ca.crt path"))
    file = SourceFile(staging / "download", unquote(PurePosixPath(urlsplit(uri).path).name) or parts.netloc)
    if format_of(file, dataset.file_format) is None:
        raise invalid_data(
            f"dataset {dataset.name}: the name of {uri} does not tell how to read it",
            hint="set fileFormat to JSONL, JSON, CSV, Parquet or Text",
        )

    def attempt() -> None:
        try:
            # urllib3 follows redirects and drops the Authorization header on the way to another host.
            response = pool.request(
                "GET", address, headers=headers, preload_content=False, redirect=True, retries=_redirects()
            )
            with response, open(file.path, "wb") as target:
                if address != uri and response.status in EXPIRED:
                    raise _expired(dataset, uri, response.status)
                _check_status(dataset, uri, response.status, bool(secret))
                for block in response.stream(1 << 20):
                    target.write(block)
        except urllib3.exceptions.HTTPError as error:
            _check_host(dataset, uri, parts.hostname or "", error)
            if isinstance(error, urllib3.exceptions.SSLError) or "CERTIFICATE" in str(error).upper():
                raise invalid_data(
                    f"dataset {dataset.name}: {uri}: the server's certificate is not trusted",
                    hint="put the issuing CA into the secret as ca.crt",
                ) from error
            raise Unavailable(reason(error)) from error

    _with_retries(attempt, dataset, uri)
    return file


def signed_address(dataset: Dataset, secret: dict[str, str]) -> str | None:
    """The address under the key url of a dataset's Secret, if it has one."""
    address = secret.get("url")
    if address is None or address.startswith(("https://", "http://")):
        return address
    raise invalid_data(
        f"dataset {dataset.name}: the key url of secretRef is no address", hint="write it as https://host/path?query"
    )


def _expired(dataset: Dataset, uri: str, status: int) -> UserError:
    return invalid_data(
        f"dataset {dataset.name}: {uri}: the signed address in secretRef is refused (HTTP {status}); such addresses expire",
        hint="make a new one and put it into the key url of the Secret",
    )


def _redirects() -> object:
    from urllib3.util import Retry

    return Retry(total=5, connect=0, read=0, status=0, other=0, redirect=5)


def _download_s3(dataset: Dataset, bucket: str, key: str, secret: dict[str, str], staging: Path) -> list[SourceFile]:
    from botocore.exceptions import BotoCoreError, ClientError

    client, own_key = s3_client(secret), "AWS_ACCESS_KEY_ID" in secret
    uri = f"s3://{bucket}/{key}"

    def guarded(call: Callable[[], T]) -> T:
        try:
            return call()
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchBucket", "NoSuchKey", "404"):
                raise invalid_data(
                    f"dataset {dataset.name}: {uri} does not exist ({code})",
                    hint="check bucket, key and AWS_ENDPOINT_URL",
                ) from error
            if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
                status = 403
            _check_status(dataset, uri, status, own_key)
            raise Unavailable(f"{code or status}") from error
        except RecursionError as error:  # the client asks for the bucket's region, is redirected, and asks again
            raise invalid_data(
                f"dataset {dataset.name}: {uri}: the store answers with redirects and nothing else",
                hint="check AWS_ENDPOINT_URL: it has to be the store's S3 API",
            ) from error
        except BotoCoreError as error:
            _check_host(dataset, uri, urlsplit(client.meta.endpoint_url).hostname or "", error)
            raise Unavailable(reason(error)) from error

    def keys() -> list[str]:
        if not key.endswith("/"):
            return [key]
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        return sorted(o["Key"] for page in pages for o in page.get("Contents", []) if not o["Key"].endswith("/"))

    wanted = _with_retries(lambda: guarded(keys), dataset, uri)
    files = []
    for number, name in enumerate(wanted):
        file = SourceFile(staging / f"object-{number}", f"s3://{bucket}/{name}")
        if format_of(file, dataset.file_format) is None:
            if len(wanted) == 1:
                raise invalid_data(
                    f"dataset {dataset.name}: the name of {uri} does not tell how to read it",
                    hint="set fileFormat to JSONL, JSON, CSV, Parquet or Text",
                )
            continue

        def download(name: str = name, file: SourceFile = file) -> None:
            body = client.get_object(Bucket=bucket, Key=name)["Body"]
            with open(file.path, "wb") as target:
                for block in body.iter_chunks(1 << 20):
                    target.write(block)

        _with_retries(lambda: guarded(download), dataset, uri)
        files.append(file)
    if not files:
        raise invalid_data(
            f"dataset {dataset.name}: {uri} has no object that can be read", hint="check the prefix, or set fileFormat"
        )
    return files


def s3_client(secret: dict[str, str], *, endpoint: str = "", region: str = "", patient: bool = False) -> Any:
    """A client with the keys of a Secret, or with what the environment has, or without any.

    Args:
        secret: may name endpoint and region too.
        endpoint: goes before the Secret's.
        region: goes before the Secret's.
        patient: whether the client itself tries again: of a large file in parts, one part instead of all.
    """
    import os

    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    ambient = any(
        name in os.environ
        for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    )
    endpoint = endpoint or secret.get("AWS_ENDPOINT_URL") or ""
    # Google's interface takes no checksums at the end of a body, which the client adds where it need not.
    checksums = "when_required" if endpoint.rstrip("/").endswith("googleapis.com") else "when_supported"
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT * 6 if patient else READ_TIMEOUT,
        retries={"total_max_attempts": 4 if patient else 1, "mode": "standard"},
        signature_version=None if "AWS_ACCESS_KEY_ID" in secret or ambient else UNSIGNED,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path"} if endpoint else {},
    )
    return boto3.client(
        "s3",
        aws_access_key_id=secret.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=secret.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=secret.get("AWS_SESSION_TOKEN"),
        endpoint_url=endpoint or os.environ.get("AWS_ENDPOINT_URL") or None,
        region_name=region or secret.get("AWS_REGION") or os.environ.get("AWS_REGION") or "us-east-1",
        verify=secret.get("ca.crt path"),
        config=config,
    )


def _with_retries(attempt: Callable[[], T], dataset: Dataset, uri: str) -> T:
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except Unavailable as error:
            if number == TRIES:
                raise source_unavailable(
                    f"dataset {dataset.name}: {uri} did not answer in {TRIES} tries: {error}",
                    hint="check that the server is up and reachable from the cluster",
                ) from error
            say(f"dataset {dataset.name}: {uri}: {error}; trying again")
            time.sleep(PAUSES[number - 1])
    raise AssertionError("unreachable")


def _check_status(dataset: Dataset, uri: str, status: int, has_secret: bool) -> None:
    if status < 300:
        return
    if status in (401, 403):
        advice = "check the values in secretRef" if has_secret else "give secretRef with the credentials"
        raise invalid_data(f"dataset {dataset.name}: {uri}: access is refused (HTTP {status})", hint=advice)
    if status in (429, 408) or status >= 500 or status == 0:
        raise Unavailable(f"HTTP {status}")
    raise invalid_data(f"dataset {dataset.name}: {uri}: HTTP {status}", hint="check the address")


def _check_host(dataset: Dataset, uri: str, host: str, error: BaseException) -> None:
    """An unknown name stays unknown; a name server that does not answer at the moment may do so later."""
    if is_unknown(host):
        raise invalid_data(
            f"dataset {dataset.name}: {uri}: the host {host} is unknown", hint="check the address for typing errors"
        ) from error


def is_unknown(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return error.errno != socket.EAI_AGAIN
    return False


def reason(error: BaseException) -> str:
    """The innermost explanation, without addresses of Python objects."""
    inner = error
    while isinstance(next_one := getattr(inner, "reason", None) or inner.__cause__, BaseException):
        inner = next_one
    return first_line(str(inner).rpartition(">: ")[2] or type(inner).__name__)


def request_headers(secret: dict[str, str]) -> dict[str, str]:
    """Headers of an http(s) request with the credentials of a dataset's Secret."""
    import urllib3

    headers = {"User-Agent": "trainyard", "Accept-Encoding": "identity"}
    if "token" in secret:
        headers["Authorization"] = f"Bearer {secret['token']}"
    elif "username" in secret:
        headers |= urllib3.make_headers(basic_auth=f"{secret['username']}:{secret.get('password', '')}")
    return headers


def read_secret(dataset: Dataset, secrets: Path) -> dict[str, str]:
    """What the Secret of a dataset holds (see `secret_values`)."""
    return secret_values(dataset.secret_ref, secrets, told=f"dataset {dataset.name}", invalid=invalid_data)


def secret_values(
    secret_ref: SecretRef | None,
    secrets: Path,
    *,
    told: str,
    invalid: Callable[..., UserError] = invalid_config,
) -> dict[str, str]:
    """Key by key; `ca.crt path` is added where a CA is given, because clients want a file.

    Raises:
        UserError: the Secret is not there.
    """
    if secret_ref is None:
        return {}
    folder = secrets / secret_ref.name
    if not folder.is_dir():
        raise invalid(
            f"{told}: secret {secret_ref.name} is not mounted at {folder}",
            hint="locally, make that folder with one file per key; in a cluster create the Secret",
        )
    values = {}
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith("."):
            with contextlib.suppress(UnicodeDecodeError):
                values[file.name] = file.read_text().strip()
    keep_secret(values)
    if query := urlsplit(values.get("url", "")).query:
        keep_secret({"token": query})
    if "ca.crt" in values:
        values["ca.crt path"] = str(folder / "ca.crt")
    return values
