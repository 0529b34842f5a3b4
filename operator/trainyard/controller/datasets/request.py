"""What may be asked of the datasets' API, and the run that answers it. Pure."""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainyard.api import API_VERSION, GROUP
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL
from trainyard.controller.kube.cluster import Object
from trainyard.controller.reports.formats import Refusal, parsed, validated

DATASET_LABEL = f"{GROUP}/dataset"
"""On a run that the API has made: the dataset's key."""
REQUEST_ANNOTATION = f"{GROUP}/dataset-request"
"""On the same: what was asked for, to tell the same request from another one."""
KEY_LENGTH = 63
"""Of a label's value."""
FILTERS_LENGTH = 4096
FORMATS = ("trace", "training_example", "tunix_sft")
SOURCE = "traces"
"""Name of the run's only dataset."""
_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"


class BuildRequest(BaseModel):
    """The body of a build."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset_name: str = Field(max_length=60, pattern=_NAME)
    dataset_version: str = Field(max_length=60, pattern=_NAME)
    filters: dict[str, Any] = Field(default_factory=dict, max_length=16)
    limit: int = Field(100, ge=1, le=10000)
    selection_strategy: Literal["latest", "random"] = "latest"
    seed: int | None = Field(None, ge=0, le=2147483647)
    dry_run: bool = False

    @model_validator(mode="after")
    def _is_bounded(self) -> "BuildRequest":
        if len(self.key) > KEY_LENGTH:
            raise ValueError(f"dataset_name and dataset_version have more than {KEY_LENGTH - 1} characters together")
        if self.selection_strategy == "random" and self.seed is None:
            raise ValueError("selection_strategy random needs a seed, so that the same is chosen again")
        if len(json.dumps(self.filters)) > FILTERS_LENGTH:
            raise ValueError(f"filters are longer than {FILTERS_LENGTH} characters as JSON")
        return self

    @property
    def key(self) -> str:
        """What the dataset is called."""
        return f"{self.dataset_name}-{self.dataset_version}"

    @property
    def text(self) -> str:
        """What makes two requests the same."""
        return json.dumps(self.model_dump(exclude={"dry_run"}), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Place:
    """Where datasets are built, and out of what."""

    namespace: str
    secret: str
    """Secret with database-url."""
    size: str
    """Of each dataset's claim."""


def request_of(body: bytes) -> BuildRequest:
    """Raises `Refusal`."""
    given = parsed(body)
    if isinstance(given, dict) and (unknown := sorted(set(given) - set(BuildRequest.model_fields))):
        known = ", ".join(BuildRequest.model_fields)
        raise Refusal(422, f"{unknown[0][:100]}: there is no such field; a build has {known}")
    return validated(BuildRequest, given)


def is_key(text: str) -> bool:
    """Whether a dataset can be called so: whatever else stands in an address is no part of a question to the API server."""
    return len(text) <= KEY_LENGTH and re.fullmatch(_NAME, text) is not None


def run_of(asked: BuildRequest, place: Place) -> Object:
    """The run that builds it, ready to be created."""
    traces: Object = {
        "database": {},
        "datasetName": asked.dataset_name,
        "datasetVersion": asked.dataset_version,
        "limit": asked.limit,
        "selectionStrategy": asked.selection_strategy.capitalize(),
        "exportFormat": "TRM",
        **({"filters": asked.filters} if asked.filters else {}),
        **({"seed": asked.seed} if asked.seed is not None else {}),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {
            "name": _name(asked.key),
            "namespace": place.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, DATASET_LABEL: asked.key},
            "annotations": {REQUEST_ANNOTATION: asked.text},
        },
        "spec": {
            "mode": "Dataset",
            "datasets": [{"name": SOURCE, "traces": traces, "secretRef": {"name": place.secret}, "format": "TRM"}],
            "storage": {"checkpoints": {"size": place.size}},
            "backoffLimit": 0,  # who asked is told, and asks again
        },
    }


def _name(key: str) -> str:
    """A new one each time: a build that failed is built again, beside what is left of it."""
    return f"{re.sub('[^a-z0-9]+', '-', key.lower()).strip('-')[:40].rstrip('-')}-{secrets.token_hex(3)}"


def differences(asked: BuildRequest, run: Mapping[str, Any]) -> list[str]:
    """Fields in which the request is another one than that of the run."""
    try:
        before = json.loads((run["metadata"].get("annotations") or {}).get(REQUEST_ANNOTATION, "{}"))
    except ValueError:
        before = {}
    now = json.loads(asked.text)
    return [name for name in now if now[name] != before.get(name)]


def state_of(run: Mapping[str, Any]) -> str:
    """How the run stands; Pending before its first look."""
    return str((run.get("status") or {}).get("state") or "Pending")


def is_over(run: Mapping[str, Any]) -> bool:
    return state_of(run) in ("Succeeded", "Failed", "Cancelled")


def told(run: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a build: the store's four fields, and where the run and the dataset are."""
    metadata, status = run["metadata"], run.get("status") or {}
    source: dict[str, Any] = next(iter((status.get("dataset") or {}).get("sources") or ()), {})
    answer: dict[str, Any] = {
        "dataset_key": (metadata.get("labels") or {}).get(DATASET_LABEL),
        "build_id": metadata["uid"],
        "trace_count": source.get("traceCount"),
        "manifest_path": source.get("manifestPath"),
        "run": f"{metadata['namespace']}/{metadata['name']}",
    }
    claim = f"{metadata['name']}-checkpoints"
    if answer["manifest_path"]:
        answer["manifest_uri"] = f"pvc://{claim}/{answer['manifest_path']}"
    return answer


def refusal_of(run: Mapping[str, Any]) -> Refusal:
    """Why there is no dataset, of a run that ended without one."""
    metadata, status = run["metadata"], run.get("status") or {}
    failure = status.get("failure") or {}
    attempts = [a for step in status.get("steps") or () for a in step.get("attempts") or ()]
    reason = str((attempts[-1:] or [failure])[0].get("reason") or state_of(run))
    words = "; ".join(str(failure.get(part)) for part in ("message", "hint") if failure.get(part))
    at = f"TrainingRun {metadata['namespace']}/{metadata['name']}: {reason}"
    message = f"the dataset was not built: {words or status.get('message') or reason} ({at})"
    return Refusal({"InvalidData": 422, "InvalidConfig": 422, "SourceUnavailable": 503}.get(reason, 409), message)
