"""How a source is reached: credentials from a Secret, and what can go wrong on the way.

The Secret is read for this one request and not kept. A message about a failure names the address and the field, never a
header.
"""

import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from trainyard.controller.schedules.triggers.s3 import Store

TIMEOUT_SECONDS = 20.0
ANSWER_LIMIT = 8 * 2**20
"""Bytes of an answer in JSON."""


class SourceDown(Exception):
    """The source gave no usable answer; nothing follows from that."""


@dataclass(frozen=True)
class Access:
    """Credentials of one source."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca: str = ""
    store: Store = field(default_factory=Store)
    """For s3:// addresses."""

    def headers(self) -> dict[str, str]:
        """The Authorization header, if there are credentials."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        if self.username or self.password:
            basic = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            return {"Authorization": f"Basic {basic}"}
        return {}

    def context(self) -> ssl.SSLContext:
        """Trusts the Secret's ca.crt instead of the system's authorities, where there is one."""
        try:
            return ssl.create_default_context(cadata=self.ca or None)
        except ssl.SSLError as error:
            raise SourceDown(f"ca.crt of the Secret is no PEM certificate: {error}") from None

    @classmethod
    def from_secret(cls, secret: Mapping[str, Any] | None, name: str) -> "Access":
        """Raises `SourceDown` when the Secret is not there or has none of the keys."""
        if secret is None:
            raise SourceDown(f"secretRef: Secret {name} does not exist; create it, or correct the name")
        data = secret.get("data") or {}
        given = {key: base64.b64decode(data[key]).decode(errors="replace").strip() for key in data}
        if not {"username", "password", "token", "ca.crt"} & given.keys() and "AWS_ACCESS_KEY_ID" not in given:
            raise SourceDown(
                f"secretRef: Secret {name} has none of username, password, token, AWS_ACCESS_KEY_ID, ca.crt"
            )
        return cls(
            username=given.get("username", ""),
            password=given.get("password", ""),
            token=given.get("token", ""),
            ca=given.get("ca.crt", ""),
            store=Store.of(given),
        )


async def get_json(
    session: aiohttp.ClientSession, url: str, access: Access, *, query: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Status and decoded body of a GET. Raises `SourceDown` when there is no answer or none in JSON."""
    try:
        async with session.get(
            url,
            params=query,
            headers=access.headers(),
            ssl=access.context() if url.startswith("https:") else True,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        ) as answer:
            body = await answer.content.read(ANSWER_LIMIT)
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise SourceDown(unreachable(url, error)) from None
    if status in (401, 403):
        raise SourceDown(f"{url} refuses access (HTTP {status}): check secretRef and what it is allowed to do")
    try:
        return status, json.loads(body)
    except ValueError:
        raise SourceDown(f"{url} answers HTTP {status} without JSON; is it the right address?") from None


def unreachable(url: str, error: BaseException) -> str:
    """The sentence for a source that does not answer."""
    what = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return f"{url} cannot be reached: {what}; it is tried again"


def compare(value: float, comparison: str, threshold: float) -> bool:
    """The API's six comparisons."""
    match comparison:
        case "LessThan":
            return value < threshold
        case "LessThanOrEqual":
            return value <= threshold
        case "GreaterThan":
            return value > threshold
        case "GreaterThanOrEqual":
            return value >= threshold
        case "Equal":
            return value == threshold
        case "NotEqual":
            return value != threshold
    raise ValueError(f"unknown comparison {comparison}")


SIGNS = {
    "LessThan": "<",
    "LessThanOrEqual": "<=",
    "GreaterThan": ">",
    "GreaterThanOrEqual": ">=",
    "Equal": "=",
    "NotEqual": "!=",
}
