"""Who asks a source: credentials from a Secret.

The Secret is read for one look and not kept: its keys go to the process of that look, over its pipe. No message ever holds
one of them.
"""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from trainyard.controller.schedules.triggers.answer import SourceDown
from trainyard.controller.schedules.triggers.s3 import Store

_BESIDE = {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"}
"""Keys that say nothing without AWS_ACCESS_KEY_ID."""
_KEYS = {"username", "password", "token", "ca.crt", "AWS_ACCESS_KEY_ID"} | _BESIDE


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
        if not self.ca:
            return default_context()
        try:
            return ssl.create_default_context(cadata=self.ca)
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise SourceDown(f"ca.crt of the Secret is no PEM certificate: {error}") from None

    @classmethod
    def from_secret(cls, secret: Mapping[str, Any] | None, name: str) -> "Access":
        """Raises `SourceDown` when the Secret is not there or has none of the keys."""
        if secret is None:
            raise SourceDown(f"secretRef: Secret {name} does not exist; create it, or correct the name")
        data = secret.get("data") or {}
        given = {key: base64.b64decode(data[key]).decode(errors="replace").strip() for key in _KEYS if key in data}
        if not given.keys() - _BESIDE:
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


@cache
def default_context() -> ssl.SSLContext:
    """Trusts the system's authorities. Reading them takes longer than many a look, so all looks share one."""
    return ssl.create_default_context()
