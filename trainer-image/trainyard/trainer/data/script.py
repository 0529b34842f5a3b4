"""`spec.storage.workspace.script`: one file from a web server, taken only if it is the file that the spec means."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trainyard.api.addresses import told
from trainyard.api.run.workspace import Script
from trainyard.trainer.data.sources import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    is_unknown,
    reason,
    request_headers,
    secret_values,
)
from trainyard.trainer.errors import invalid_config, source_unavailable

FIELD = "spec.storage.workspace.script"
MOST_BYTES = 16 * 2**20


def fetch_script(wanted: Script, folder: Path, *, secrets: Path) -> str:
    """Put the file into the folder, under the last part of its address.

    Returns: its digest, as `sha256:...`.

    Raises:
        UserError: it is another file, is not there, access is refused, nobody answers.
    """
    import urllib3

    values = secret_values(wanted.secret_ref, secrets, told=FIELD)
    address, host = told(wanted.url), urlsplit(wanted.url).hostname or ""
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    # urllib3 follows redirects and drops the Authorization header on the way to another host.
    retries = urllib3.Retry(total=8, connect=2, read=2, status=0, redirect=5, backoff_factor=0.5)
    pool = urllib3.PoolManager(timeout=timeout, retries=retries, ca_certs=values.get("ca.crt path"))
    try:
        with pool.request("GET", wanted.url, headers=request_headers(values), preload_content=False) as response:
            status, content = response.status, response.read(MOST_BYTES + 1)
    except urllib3.exceptions.HTTPError as error:
        if is_unknown(host):
            text = f"{FIELD}.url {address}: the host {host} is unknown"
            raise invalid_config(text, hint="check the address for typing errors") from error
        raise source_unavailable(
            f"{FIELD}.url {address} did not answer: {reason(error)}",
            hint="check that the server is up and reachable from the cluster; a CA of its own goes into the Secret as ca.crt",
        ) from error
    if status in (401, 403):
        advice = "check the values in secretRef" if values else "give secretRef with the credentials"
        raise invalid_config(f"{FIELD}.url {address}: access is refused (HTTP {status})", hint=advice)
    if status in (408, 429) or status >= 500:
        raise source_unavailable(f"{FIELD}.url {address} answers HTTP {status}", hint="it is tried again")
    if status != 200:
        raise invalid_config(f"{FIELD}.url {address}: HTTP {status}", hint="check the address")
    if len(content) > MOST_BYTES:
        raise invalid_config(
            f"{FIELD}.url {address} has more than {MOST_BYTES >> 20} MiB, which is no script",
            hint="put what it needs into storage.workspace.git, a dataset or the image",
        )
    if (found := hashlib.sha256(content).hexdigest()) != wanted.sha256:
        raise invalid_config(
            f"{FIELD}.url {address} has the sha256 {found}, and spec.storage.workspace.script.sha256 is {wanted.sha256}: it is not "
            "the file that was meant",
            hint="look at what has changed in it; if that is wanted, give the new digest in a new run",
        )
    file = folder / unquote(PurePosixPath(urlsplit(wanted.url).path).name)
    file.write_bytes(content)
    file.chmod(0o755)
    return f"sha256:{found}"
