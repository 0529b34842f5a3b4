"""Whose run it is and what its result is called: `spec.owner`, `spec.versioning`, and the placeholders' values. Pure."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from trainyard.api import GROUP
from trainyard.api.base import ApiModel
from trainyard.api.names import GIT_COMMIT_LABEL
from trainyard.api.run.placeholders import NameTemplate, fill

COMMIT_LENGTH = 8
DIGEST_LENGTH = 12
UNKNOWN_DIGEST = "0" * DIGEST_LENGTH
"""Stands for the digest while there is no result: when the prepare step asks whether a target would take one."""

_Word = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]


class Owner(ApiModel):
    """Whom a run belongs to. Each becomes a label of Jobs and pods."""

    project: _Word = Field("", description="Label trainyard.dev/project.")
    domain: _Word = Field("", description="Label trainyard.dev/domain, for example production.")
    agent: _Word = Field("", description="Label trainyard.dev/agent: who will answer with the model.")
    user: _Word = Field("", description="Label trainyard.dev/user.")
    experiment: _Word = Field("", description="Label trainyard.dev/experiment.")


class Versioning(ApiModel):
    """What the result is called, once for all exports."""

    name: NameTemplate | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Name of the result, with placeholders. Default: {agent}-<model>-{date}-{commit}, <model> being the last part of "
        "the base model's address.",
    )
    version: NameTemplate = Field(
        "v{date}-{commit}", min_length=1, max_length=100, description="Version of the result, with placeholders."
    )


def values_of(
    *,
    metadata: Any,
    spec: Any,
    moment: datetime | None = None,
    digest: str | None = None,
    uri: str = "",
) -> dict[str, str]:
    """By placeholder, its value for this run.

    Args:
        metadata: of the run.
        spec: of the run.
        moment: what counts as the run's creation, where metadata has none.
        digest: of the result, `sha256:...`; None while there is none.
        uri: what the first export of dependsOn has left.
    """
    created = datetime.fromisoformat(metadata.creation_timestamp) if metadata.creation_timestamp else moment
    at = (created or datetime.now(UTC)).astimezone(UTC)
    values = {
        "name": metadata.name,
        "namespace": metadata.namespace,
        "agent": (spec.owner.agent if spec.owner else "") or metadata.name,
        "date": at.strftime("%Y%m%d"),
        "timestamp": at.strftime("%Y%m%d_%H%M%S"),
        "commit": (metadata.labels.get(GIT_COMMIT_LABEL) or metadata.uid or "local")[:COMMIT_LENGTH],
    }
    versioning = spec.versioning or Versioning()
    return values | {
        "model": fill(versioning.name or _default_name(spec), values),
        "version": fill(versioning.version, values),
        "digest": digest.removeprefix("sha256:")[:DIGEST_LENGTH] if digest else UNKNOWN_DIGEST,
        "uri": uri,
    }


def _default_name(spec: Any) -> str:
    base = re.sub(r"[^a-z0-9.]+", "-", _base(spec).lower()).strip("-.")
    return "-".join(part for part in ("{agent}", base, "{date}", "{commit}") if part)


def _base(spec: Any) -> str:
    model = spec.model
    if model is None:
        return ""
    if model.storage_uri is None:
        return "trm" if model.trm is not None else str(model.scratch.architecture) if model.scratch else ""
    return str(model.storage_uri).partition("@")[0].rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def owner_labels(owner: Owner | None) -> dict[str, str]:
    """The labels that say whose it is."""
    return {f"{GROUP}/{name}": value for name, value in (owner.model_dump() if owner else {}).items() if value}
