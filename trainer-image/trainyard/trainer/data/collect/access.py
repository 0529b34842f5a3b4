"""How a source is reached: what its Secret holds, and the volumes of the pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import read_secret

STORE_KEY = "tunix-api-key"
"""What the token is called in the Secret that people of tunix-rt have already."""


@dataclass(frozen=True)
class Access:
    """Credentials of one dataset's source; none of them is ever part of a message."""

    dataset: Dataset
    volumes: Path
    secrets: Path
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tenant: str = ""
    """Value of X-Scope-OrgID, which Loki, Tempo and Mimir read."""
    ca: str | None = None
    """Path of a file with the authorities to trust instead of the system's."""

    @property
    def name(self) -> str:
        """How messages begin."""
        return f"dataset {self.dataset.name}"

    @property
    def has_credentials(self) -> bool:
        """Whether a refusal is about wrong credentials or about none."""
        return bool(self.token or self.username or self.password)


def read_access(dataset: Dataset, *, volumes: Path, secrets: Path) -> Access:
    """Raises UserError if the Secret is not there."""
    values = read_secret(dataset, secrets)
    return Access(
        dataset=dataset,
        volumes=volumes,
        secrets=secrets,
        username=values.get("username", ""),
        password=values.get("password", ""),
        token=values.get("token") or (values.get(STORE_KEY, "") if dataset.traces is not None else ""),
        tenant=values.get("tenant", ""),
        ca=values.get("ca.crt path"),
    )
