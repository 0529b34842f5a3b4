"""What the planner reads from a schedule's runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard.api.names import CANCEL_ANNOTATION
from trainyard.api.schedule.trainingschedule import TEMPLATE_DIGEST_ANNOTATION, VARIANT_LABEL
from trainyard.controller.runs.views import parse_time


@dataclass(frozen=True)
class ChildView:
    """A run of the schedule, as far as the planner cares."""

    name: str
    uid: str
    variant: str
    created: datetime
    state: str = ""
    succeeded: bool = False
    failed: bool = False
    unchanged: bool = False
    """It ended because there was nothing new."""
    completed: datetime | None = None
    cancelling: bool = False
    deleting: bool = False
    template_digest: str | None = None
    dataset_digest: str | None = None

    @property
    def finished(self) -> bool:
        """Terminal, for ever."""
        return self.succeeded or self.failed

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "ChildView":
        """Reads the conditions, as everybody should; `state` is for people."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        annotations = metadata.get("annotations") or {}
        true = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            variant=(metadata.get("labels") or {}).get(VARIANT_LABEL, ""),
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            state=status.get("state") or "",
            succeeded="Complete" in true,
            failed="Failed" in true,
            unchanged=true.get("Failed", {}).get("reason") == "Unchanged",
            completed=parse_time(status.get("completionTime")),
            cancelling=CANCEL_ANNOTATION in annotations,
            deleting="deletionTimestamp" in metadata,
            template_digest=annotations.get(TEMPLATE_DIGEST_ANNOTATION),
            dataset_digest=(status.get("dataset") or {}).get("digest"),
        )


def controller_uid(raw: Mapping[str, Any]) -> str | None:
    """Uid of the object that controls this one."""
    owners = raw["metadata"].get("ownerReferences") or []
    return next((str(o["uid"]) for o in owners if o.get("controller")), None)
