"""A registry of images, spoken to over the distribution API: is it there, send it, move a tag.

Small enough to stand here: the clients for Python push artifacts that no container runtime takes for an image. Credentials go to
the registry itself and to the place for tokens that it names, and nowhere that it redirects to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from trainyard.api.addresses import keep_secret
from trainyard.trainer.data.sources import is_unknown
from trainyard.trainer.errors import UserError, invalid_config, source_unavailable
from trainyard.trainer.exports.image import INDEX, MANIFEST, Blob, Image
from trainyard.trainer.log import say

TRIES = 3
PAUSES = (1.0, 3.0)
TIMEOUT = urllib3.Timeout(connect=5, read=120)
DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB)
CONFIG_KEY = ".dockerconfigjson"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Reference:
    """`host/repository:tag`."""

    host: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, image: str) -> Reference:
        rest, _, tag = image.rpartition(":")
        host, _, repository = rest.partition("/")
        return cls(host, repository, tag)

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Credentials:
    """Of one registry."""

    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def read(cls, secret: Mapping[str, str], host: str, *, told: str) -> Credentials:
        """From username and password, or from the pull secret that Kubernetes has for registries (.dockerconfigjson)."""
        if "username" in secret:
            return cls(secret["username"], secret.get("password", ""))
        if CONFIG_KEY not in secret:
            return cls()
        try:
            found = json.loads(secret[CONFIG_KEY])["auths"]
            keys = DOCKER_HUB_KEYS if host == DOCKER_HUB else (host, f"https://{host}", f"http://{host}")
            entry = next((found[key] for key in keys if key in found), None)
            if entry is None:
                raise invalid_config(
                    f"{told}: the secret has credentials for {', '.join(sorted(found)) or 'no registry'}, not for {host}",
                    hint=f"add an entry for {host} to {CONFIG_KEY}",
                )
            login = base64.b64decode(entry["auth"], validate=True).decode() if entry.get("auth") else ""
            username, _, password = login.partition(":")
            read = cls(entry.get("username") or username, entry.get("password") or password)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise invalid_config(
                f"{told}: {CONFIG_KEY} in the secret is not what kubectl create secret docker-registry makes",
                hint="make the secret with that command",
            ) from error
        keep_secret({"username": read.username, "password": read.password})
        return read


@dataclass
class Registry:
    """One repository of a registry. All raise UserError."""

    reference: Reference
    credentials: Credentials
    told: str
    insecure: bool = False
    ca: str | None = None
    _authorization: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        host = DOCKER_HUB_API if self.reference.host == DOCKER_HUB else self.reference.host
        self._base = f"{'http' if self.insecure else 'https'}://{host}/v2/{self.reference.repository}"
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False, ca_certs=self.ca)

    def ask_whether_writable(self) -> None:
        """Begin an upload and give it up."""
        place = self._begin()
        self._ask("DELETE", place, taken=(200, 202, 204, 404, 405))

    def send(self, image: Image) -> int:
        """Blobs, then what refers to them; a tag is set by `tag`. Returns how many blobs were sent."""
        sent = 0
        for blob in image.blobs:
            if self._ask("HEAD", f"{self._base}/blobs/{blob.digest}", taken=(200, 404)).status == 404:
                self._guarded(lambda blob=blob: self._upload(blob))  # type: ignore[misc]
                sent += 1
        for manifest in (*image.manifests, image.index):
            self.put(manifest, manifest.digest)
        return sent

    def put(self, manifest: Blob, name: str) -> None:
        """A manifest under its digest or under a tag."""
        answer = self._ask(
            "PUT",
            f"{self._base}/manifests/{name}",
            taken=(201,),
            body=manifest.content,
            headers={"Content-Type": manifest.kind},
        )
        told = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if told != manifest.digest:
            raise source_unavailable(
                f"{self.told}: the registry has stored manifest {told}, and {manifest.digest} was sent",
                hint="another attempt is made by itself; where it stays so, something before the registry changes what is sent",
            )

    def get(self, name: str) -> Blob | None:
        """The manifest under a tag or digest."""
        headers = {"Accept": f"{INDEX}, {MANIFEST}"}
        answer = self._ask("GET", f"{self._base}/manifests/{name}", taken=(200, 404), headers=headers)
        if answer.status == 404:
            return None
        kind = answer.headers.get("Content-Type", INDEX)
        return Blob(kind, f"sha256:{hashlib.sha256(answer.data).hexdigest()}", len(answer.data), answer.data)

    def _begin(self) -> str:
        answer = self._ask("POST", f"{self._base}/blobs/uploads/", taken=(202,), headers={"Content-Length": "0"})
        return str(urljoin(f"{self._base}/", answer.headers["Location"]))

    def _upload(self, blob: Blob) -> None:
        place = self._begin()
        with blob.open() as body:
            headers = {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"}
            answer = self._once("PATCH", place, body=body, headers=headers)
        if answer.status not in (202, 204):
            raise self._fault(answer)
        place = urljoin(place, answer.headers["Location"])
        mark = "&" if "?" in place else "?"
        answer = self._once(
            "PUT", f"{place}{mark}{urlencode({'digest': blob.digest})}", headers={"Content-Length": "0"}
        )
        if answer.status not in (201, 204):
            raise self._fault(answer)

    def _ask(self, method: str, url: str, *, taken: tuple[int, ...], **content: Any) -> Any:
        def attempt() -> Any:
            answer = self._once(method, url, **content)
            if answer.status not in taken:
                raise self._fault(answer)
            return answer

        return self._guarded(attempt)

    def _once(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """One request, and a second one where the registry wants a token first."""
        answer = self._request(method, url, headers, body)
        if answer.status == 401 and not hasattr(body, "read"):
            self._authorization = self._authorized(answer.headers.get("WWW-Authenticate", ""))
            answer = self._request(method, url, headers, body)
        return answer

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None, body: Any) -> Any:
        own = urlsplit(url)[:2] == urlsplit(self._base)[:2]
        authorization = {"Authorization": self._authorization} if own and self._authorization else {}
        return self._pool.request(
            method,
            url,
            body=body,
            headers={"User-Agent": "trainyard", **(headers or {}), **authorization},
            redirect=False,
        )

    def _authorized(self, challenge: str) -> str:
        """The header that answers a challenge."""
        login = f"{self.credentials.username}:{self.credentials.password}"
        basic = dict(urllib3.make_headers(basic_auth=login)) if self.credentials.username else {}
        if not challenge.lower().startswith("bearer"):
            return str(basic.get("authorization", ""))
        asked = dict(_PARAMETER.findall(challenge))
        realm = asked.get("realm", "")
        if not realm.startswith("https://" if not self.insecure else ("http://", "https://")):
            raise self._refused("names a place for tokens that is not https")
        scope = f"repository:{self.reference.repository}:pull,push"
        query = urlencode({"service": asked.get("service", ""), "scope": scope})
        answer = self._pool.request("GET", f"{realm}?{query}", headers=basic, redirect=False)
        if answer.status != 200:
            raise self._fault(answer)
        given = json.loads(answer.data)
        token = str(given.get("token") or given.get("access_token") or "")
        keep_secret({"token": token})
        return f"Bearer {token}"

    def _fault(self, answer: Any) -> UserError | ConnectionError:
        """What an answer means that is none of those that were hoped for."""
        said = _said(answer.data)
        if answer.status in (401, 403):
            return self._refused(f"refuses access (HTTP {answer.status}){said}")
        if answer.status in (408, 409, 416, 425, 429) or answer.status >= 500:
            return ConnectionError(f"HTTP {answer.status}{said}")
        return self._refused(f"does not take it (HTTP {answer.status}){said}")

    def _refused(self, what: str) -> UserError:
        return invalid_config(
            f"{self.told}: the registry {what}",
            hint="check image and secretRef: username and password, or .dockerconfigjson, of an account that may push there",
        )

    def _guarded(self, call: Callable[[], Any]) -> Any:
        last = ""
        for number in range(TRIES):
            try:
                return call()
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                text = str(error)
                if "CERTIFICATE_VERIFY_FAILED" in text:
                    raise invalid_config(
                        f"{self.told}: the registry's certificate is not trusted",
                        hint="put the issuing CA into the secret of secretRef as ca.crt",
                    ) from error
                if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
                    raise invalid_config(
                        f"{self.told}: the registry speaks http, not https",
                        hint="give it a certificate, or set insecure: true where the network is trusted",
                    ) from error
                if is_unknown(host := urlsplit(self._base).hostname or ""):
                    raise invalid_config(f"{self.told}: the host {host} is unknown", hint="correct image") from error
                last = text if isinstance(error, ConnectionError) else type(error).__name__
                if number < len(PAUSES):
                    say(f"{self.told}: {last}; trying again")
                    time.sleep(PAUSES[number])
        raise source_unavailable(
            f"{self.told} gave no answer in {TRIES} tries: {last}",
            hint="check that the registry is up and reachable from the cluster",
        )


def _said(data: bytes) -> str:
    try:
        first = json.loads(data)["errors"][0]
        return f": {first.get('code', '')} {first.get('message', '')}"[:200]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
