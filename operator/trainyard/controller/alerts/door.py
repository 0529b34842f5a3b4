"""The way out for alerts: one POST, to where triggers may ask too, with a deadline and without following anybody.

Whoever may write a run chooses the address, and the operator's own network carries the request. So the address that a name
leads to is judged at the moment of the connection (`Guarded`), in the operator's one process, where nothing else may be kept
from connecting. A redirect is not followed. Of an answer its status counts, and the beginning of its text where it refuses.
"""

import base64
import binascii
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from trainyard.api.addresses import told
from trainyard.api.run.notifications import Notification
from trainyard.api.texts import one_line
from trainyard.controller.alerts.bodies import Posted
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import SECRETS, Cluster
from trainyard.controller.schedules.triggers.addresses import Rules

SECONDS = 10.0
"""For one request, connection and all: the lab's own deadline."""
ANSWER = 2048
"""Bytes of an answer that are read."""
LATER = frozenset({408, 409, 423, 425, 429})
"""Answers below 500 after which another try makes sense."""
ANSWER_TOLD = 200


class NotNow(Exception):
    """It did not work, and may the next time."""


class Never(Exception):
    """It will not work, however often it is tried; the message says what to change."""


@dataclass(frozen=True)
class Target:
    """Where to, and who asks."""

    url: str
    headers: Mapping[str, str]


class Guarded(AbstractResolver):
    """Leads to no address that must not be asked."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises `Never` where one of the addresses is refused: a name that leads to two places is no mistake."""
        found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        for entry in found:
            if why := self._rules.refuse_address(entry["host"]):
                raise Never(f"{entry['host']} {why}")
        return found

    async def close(self) -> None:
        await self._resolver.close()


class Door:
    """Sends."""

    def __init__(self, *, cluster: Cluster, rules: Rules, seconds: float = SECONDS) -> None:
        self._cluster = cluster
        self._rules = rules
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """No more."""
        if self._session is not None:
            await self._session.close()

    async def send(self, namespace: str, notification: Notification, posted: Posted, *, key: str) -> None:
        """Raises `NotNow` and `Never`."""
        target = await self._target(namespace, notification)
        url = target.url.rstrip("/")
        url = target.url if not posted.path or url.endswith(posted.path) else url + posted.path
        headers = {**posted.headers, **target.headers, "Idempotency-Key": key, "User-Agent": "trainyard"}
        try:
            self._judge(url)
            async with self._client().post(url, data=posted.body, headers=headers, allow_redirects=False) as answer:
                text = (await answer.content.read(ANSWER)).decode(errors="replace")
                _judge_answer(answer.status, _without(text, target))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error.__cause__, Never):
                raise error.__cause__ from None
            why = "no answer in time" if isinstance(error, TimeoutError) else _without(str(error), target)
            raise NotNow(f"{_host(url)}: {one_line(why, limit=ANSWER_TOLD)}") from None
        except (ValueError, UnicodeError):
            raise Never(
                f"the address of {notification.name} is none that can be asked; write http(s)://host/path"
            ) from None

    def _judge(self, url: str) -> None:
        """The host as it stands in the address. An address in numbers is never resolved."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError(url)
        why = self._rules.refuse_host(host)
        with contextlib.suppress(ValueError):  # a name
            why = why or self._rules.refuse_address(str(ip_address(host)))
        if why:
            raise Never(f"{host} {why}")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=Guarded(self._rules), use_dns_cache=False, force_close=True, limit=32, limit_per_host=4
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _target(self, namespace: str, notification: Notification) -> Target:
        secret = notification.secret_ref
        if secret is None:
            return Target(notification.url or "", {})
        try:
            found = await self._cluster.get(SECRETS, namespace, secret.name)
        except errors.ClusterError as error:
            raise NotNow(f"Secret {secret.name} cannot be read: {error}") from None
        if found is None:
            raise NotNow(f"Secret {secret.name} does not exist; create it, or correct the name in secretRef")
        values = _values(found)
        url = notification.url or values.get("url", "")
        if not url:
            raise Never(f"Secret {secret.name} has no key url, and the notification has no url; give one of them")
        return Target(url, _headers(values))


def _headers(values: Mapping[str, str]) -> dict[str, str]:
    headers = {}
    if api_key := values.get("apiKey") or values.get("INTERNAL_API_KEY"):
        headers["X-API-Key"] = api_key
    if token := values.get("token"):
        headers["Authorization"] = f"Bearer {token}"
    elif "username" in values or "password" in values:
        login = f"{values.get('username', '')}:{values.get('password', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return headers


def _values(secret: Mapping[str, Any]) -> dict[str, str]:
    values = {}
    for name, encoded in (secret.get("data") or {}).items():
        try:
            values[name] = base64.b64decode(encoded).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return values


def _judge_answer(status: int, text: str) -> None:
    if status < 300:
        return
    said = f": {one_line(text, limit=ANSWER_TOLD)}" if text.strip() else ""
    if status >= 500 or status in LATER:
        raise NotNow(f"HTTP {status}{said}")
    if status < 400:
        raise Never(
            f"the receiver answers with a redirect (HTTP {status}), which is not followed; name its final address"
        )
    raise Never(f"the receiver refuses the alert (HTTP {status}{said}); check address, type and Secret")


def _without(text: str, target: Target) -> str:
    """What a server or a library says, without what it was given."""
    words = (word for value in target.headers.values() for word in (value, *value.split()))
    path = urlsplit(target.url).path
    for secret in (target.url, path, *path.split("/"), *words):
        if len(secret) > 7:
            text = text.replace(secret, "…")
    return told(text)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the receiver"
