"""What a look is told: the trigger, the credentials, what the last look left, and how far it may go.

It goes to the process of the look over that process's own pipe: nobody else sees it, and nothing of it stands on a command
line or in an environment.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainyard.controller.schedules.triggers.access import Access
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.schedules.triggers.s3 import Store

LIMIT = 2**20
"""Bytes of an ask; a Secret is no larger."""


@dataclass(frozen=True)
class Kind:
    """How far a look at one kind of source may go."""

    field: str
    """Of the trigger; what is named when the look goes beyond it."""
    seconds: int
    cpu_seconds: int
    way_out: str


KINDS = {
    "gitPath": Kind("gitPath.url", 120, 60, "watch a smaller repository, or a mirror that answers sooner"),
    "prometheus": Kind(
        "prometheus.query", 30, 10, "let it give fewer series (sum, max, topk), or ask a recording rule"
    ),
    "mlflowMetric": Kind(
        "mlflowMetric.trackingUri", 60, 10, "name a server that answers sooner, or one with smaller runs"
    ),
    "dataset": Kind("dataset.url", 600, 120, "watch a smaller file, or one that lies nearer"),
}
"""By the trigger's field. Prometheus itself gives up a query after two minutes; a trigger's is worth less waiting."""


@dataclass(frozen=True)
class Ask:
    """One look at one source."""

    kind: str
    spec: Mapping[str, Any]
    """The fields of the trigger's source, by their Python names."""
    access: Access = field(default_factory=Access)
    marks: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)

    def sent(self) -> bytes:
        """As it goes over the pipe."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def received(cls, data: bytes) -> "Ask":
        """As the look reads it."""
        body = json.loads(data)
        access, rules = body["access"], body["rules"]
        return cls(
            kind=body["kind"],
            spec=body["spec"],
            access=Access(**{**access, "store": Store(**access["store"])}),
            marks=body["marks"],
            rules=Rules(tuple(rules["allowed_hosts"]), tuple(rules["denied_networks"]), rules["allow_loopback"]),
        )
