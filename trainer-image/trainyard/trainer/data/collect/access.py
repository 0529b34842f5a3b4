"""How a source is reached: what its Secret holds, and the volumes of the pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import read_secret

STORE_KEY = "tunix-api-key"
"""What the token is called in the Secret that people of tunix-rt have already."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """How somebody is asked over HTTP; nothing of it but the name is ever part of a message."""

    name: str = ""
    """How messages begin."""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tenant: str = ""
    """Value of X-Scope-OrgID, which Loki, Tempo and Mimir read."""
    ca: str | None = None
    """Path of a file with the authorities to trust instead of the system's."""

    @property
    def has_credentials(self) -> bool:
        """Whether a refusal is about wrong credentials or about none."""
        return bool(self.token or self.username or self.password)


@dataclass(frozen=True, kw_only=True)
class Access(Credentials):
    """Of one dataset's source, with the volumes of the pod."""

    dataset: Dataset
    volumes: Path
    secrets: Path


def credentials(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    """From what a Secret holds."""
    return {
        "name": name,
        "username": values.get("username", ""),
        "password": values.get("password", ""),
        "token": values.get("token", ""),
        "tenant": values.get("tenant", ""),
        "ca": values.get("ca.crt path"),
    }


def read_access(dataset: Dataset, *, volumes: Path, secrets: Path) -> Access:
    """Raises UserError if the Secret is not there."""
    values = read_secret(dataset, secrets)
    found = credentials(f"dataset {dataset.name}", values)
    if dataset.traces is not None:
        found["token"] = found["token"] or values.get(STORE_KEY, "")
    return Access(dataset=dataset, volumes=volumes, secrets=secrets, **found)
