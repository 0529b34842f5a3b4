"""Can the sources be reached? One short question to each, all at once, before anything is fetched.

What can go wrong is told apart, because the ways out differ: an unknown host, a refused connection, no answer in time, an
untrusted certificate, credentials that are refused, nothing at the address, too many requests, a server in trouble.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainyard.api.addresses import told
from trainyard.api.conditions import Reason
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import source_name
from trainyard.trainer.data.collect.access import read_access
from trainyard.trainer.data.collect.run import source_of
from trainyard.trainer.data.sources import local_files, read_secret, request_headers, s3_client
from trainyard.trainer.errors import UserError, first_line

TIMEOUT = 3.0
PATHS = {
    "prometheus": "/api/v1/query?query=1",
    "loki": "/loki/api/v1/labels",
    "tempo": "/api/search/tags",
    "code": "/info/refs?service=git-upload-pack",
    "runbook": "/info/refs?service=git-upload-pack",
    "traces": "/api/datasets",
}
"""A cheap question to each kind of system."""
WAYS_OUT = {
    "unknown host": "check the address for typing errors",
    "refused": "nothing listens there: check host and port, and that the server is up",
    "timeout": "check network policies and firewalls between the cluster and the server",
    "untrusted certificate": "put the issuing CA into the secret as ca.crt",
    "access refused": "check the credentials in secretRef",
    "not found": "check the path, bucket or key",
    "too many requests": "wait, or ask the server's owner for a higher limit",
    "server error": "look at the server's own log",
}


@dataclass(frozen=True)
class Reached:
    """How a source answered."""

    dataset: str
    source: str
    state: str
    """ok, local, or a key of WAYS_OUT."""
    detail: str = ""

    @property
    def fine(self) -> bool:
        """Whether it can be read, as far as one question tells."""
        return self.state not in WAYS_OUT

    def __str__(self) -> str:
        advice = "" if self.fine else f" ({WAYS_OUT[self.state]})"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.dataset:<20} {self.source:<50} {self.state}{detail}{advice}"

    def to_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            **{name: told(value) for name, value in asdict(self).items()},
            "fine": self.fine,
            **({} if self.fine else {"hint": WAYS_OUT[self.state]}),
        }


def probe_all(context: RunContext) -> list[Reached]:
    """Ask all sources of the run at once."""
    with ThreadPoolExecutor(8, thread_name_prefix="probe") as pool:
        return list(pool.map(lambda dataset: probe(dataset, context), context.datasets))


def probe(dataset: Dataset, context: RunContext) -> Reached:
    """Ask one source."""
    uri = dataset.storage_uri or ""
    kind = source_of(dataset)
    try:
        if kind is not None:
            return _system(dataset, kind, context)
        if dataset.inline is not None:
            return Reached(dataset.name, "inline", "local")
        if uri.startswith(("file://", "pvc://")):
            return Reached(
                dataset.name, uri, "local", f"{len(local_files(dataset, volumes=context.volumes_dir))} files"
            )
        if uri.startswith("s3://"):
            return _bucket(dataset, context.secrets_dir)
        if uri.startswith(("http://", "https://")):
            secret = read_secret(dataset, context.secrets_dir)
            if "url" in secret:
                return Reached(dataset.name, uri, "ok", "asked when it is read")
            return ask(dataset.name, uri, request_headers(secret), ca=secret.get("ca.crt path"), method="HEAD")
        return Reached(dataset.name, uri, "ok", "asked when it is read")
    except UserError as error:
        return Reached(dataset.name, source_name(dataset), "not found", error.message)


def _system(dataset: Dataset, kind: str, context: RunContext) -> Reached:
    source = getattr(dataset, kind)
    url = getattr(source, "url", None)
    if getattr(source, "database", None) is not None:
        from trainyard.trainer.data.collect.traces_database import look

        access = read_access(dataset, volumes=context.volumes_dir, secrets=context.secrets_dir)
        try:
            return Reached(dataset.name, look(source, access), "ok")
        except UserError as error:
            away = error.reason is Reason.SOURCE_UNAVAILABLE
            return Reached(dataset.name, kind, "refused" if away else "access refused", str(error))
    if url is None:
        return Reached(dataset.name, getattr(source, "storage_uri", kind) or kind, "ok", "asked when it is read")
    access = read_access(dataset, volumes=context.volumes_dir, secrets=context.secrets_dir)
    given = {"token": access.token, "username": access.username, "password": access.password}
    headers = request_headers({key: value for key, value in given.items() if value})
    if access.tenant:
        headers["X-Scope-OrgID"] = access.tenant
    return ask(dataset.name, f"{url.rstrip('/')}{PATHS[kind]}", headers, ca=access.ca, shown=url)


def ask(
    name: str, url: str, headers: dict[str, str], *, ca: str | None = None, method: str = "GET", shown: str = ""
) -> Reached:
    """One request, never repeated."""
    import urllib3
    from urllib3 import exceptions

    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=TIMEOUT, read=TIMEOUT), retries=False, ca_certs=ca)
    shown = shown or url.partition("?")[0]
    try:
        answer = pool.request(method, url, headers=headers, preload_content=False)
        answer.release_conn()
    except exceptions.NameResolutionError:
        return Reached(name, shown, "unknown host", urlsplit(url).hostname or "")
    except exceptions.SSLError as error:
        return Reached(name, shown, "untrusted certificate", str(error).split("(")[-1].rstrip(")")[:100])
    except exceptions.TimeoutError as error:
        if isinstance(error, exceptions.NewConnectionError):
            return Reached(name, shown, "refused", str(error).rpartition("] ")[2] or "no connection")
        return Reached(name, shown, "timeout", f"no answer within {TIMEOUT:g} s")
    except exceptions.HTTPError as error:
        return Reached(name, shown, "refused", str(error).rpartition("] ")[2][:100] or type(error).__name__)
    return Reached(name, shown, *_by_status(answer.status, answer.headers.get("Retry-After")))


def _by_status(status: int, retry_after: str | None = None) -> tuple[str, str]:
    if status in (401, 403):
        return "access refused", f"HTTP {status}"
    if status == 429:
        return "too many requests", "HTTP 429" + (f", again in {retry_after} s" if retry_after else "")
    if status in (404, 410):
        return "not found", f"HTTP {status}"
    # A server that does not know the question (405, 501) is there nevertheless.
    if status >= 500 and status != 501:
        return "server error", f"HTTP {status}"
    return "ok", ""


def _bucket(dataset: Dataset, secrets: Path) -> Reached:
    from botocore import exceptions

    client = s3_client(read_secret(dataset, secrets))
    uri = dataset.storage_uri or ""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        if key.endswith("/"):
            found = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("KeyCount", 0)
            return Reached(dataset.name, uri, *(("ok", "") if found else ("not found", "no object has this prefix")))
        client.head_object(Bucket=bucket, Key=key)
    except exceptions.ClientError as error:
        return Reached(dataset.name, uri, *_by_status(int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))))
    except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError):
        return Reached(dataset.name, uri, "timeout", "no answer in time")
    except exceptions.SSLError:
        return Reached(dataset.name, uri, "untrusted certificate")
    except exceptions.EndpointConnectionError as error:
        unknown = "Name or service not known" in repr(error.__context__) or "getaddrinfo" in repr(error.__context__)
        return Reached(dataset.name, uri, "unknown host" if unknown else "refused", client.meta.endpoint_url)
    except RecursionError:
        return Reached(dataset.name, uri, "not found", "the store answers with redirects and nothing else")
    except exceptions.BotoCoreError as error:
        return Reached(dataset.name, uri, "access refused", first_line(error, 100))
    return Reached(dataset.name, uri, "ok")
