"""`spec.notifications`: who is told when a run starts, ends, or gets into trouble."""

import re
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, DnsLabel, Rule, SecretRef

AlertType = Literal["job_started", "job_completed", "job_failed", "job_cancelled", "gpu_oom", "timeout_warning"]
ALERT_TYPES: tuple[AlertType, ...] = get_args(AlertType)
NOTIFICATIONS_LIMIT = 8

THIS_MACHINE = r"^https?://(localhost|127[.][0-9.]+|0[.]0[.]0[.]0|169[.]254[.][0-9.]+|\[::1?\])(:[0-9]+)?(/.*)?$"
"""Where no receiver can be: the operator's own pod, and what a cloud tells only to its machines."""


def _is_elsewhere(notification: Any) -> bool:
    return notification.url is None or re.match(THIS_MACHINE, notification.url, re.IGNORECASE) is None


class Notification(ApiModel):
    """One receiver of alerts."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.url) || has(self.secretRef)",
            "a notification needs url, or secretRef to a Secret that has the address under the key url",
            lambda n: n.url is not None or n.secret_ref is not None,
        ),
        Rule(
            f"!has(self.url) || !self.url.lowerAscii().matches(r'{THIS_MACHINE}')",
            "url is an address of the operator's own machine, where no receiver can be: name a Service or another server",
            _is_elsewhere,
        ),
    )

    name: DnsLabel = Field(description="Name of the receiver, unique in the run.")
    type: Literal["Webhook", "Slack", "Discord", "Ntfy", "Alertmanager"] = Field(
        "Webhook",
        description="What is sent. Webhook: the alert as JSON (docs/use/notifications.md). Slack, Discord: a message to an incoming "
        "webhook. Ntfy: a message to a topic's address. Alertmanager: an alert to its API (v2).",
    )
    url: HttpUrl | None = Field(
        None, description="Where alerts are posted to; where it is given, that of the Secret is not used."
    )
    events: list[AlertType] = Field(
        default_factory=list,
        max_length=len(ALERT_TYPES),
        description="What is told; empty means everything. job_started: the training has begun. job_completed, job_failed, "
        "job_cancelled: the run has ended. gpu_oom: the device's memory did not suffice. timeout_warning: nine tenths of "
        "activeDeadlineSeconds are over, or all but ten minutes.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with url, where the address is a secret by itself (Slack, Discord), apiKey (or INTERNAL_API_KEY), sent "
        "as X-API-Key, and token, or username and password, sent as Authorization. All of them are optional.",
    )

    def wants(self, event: AlertType) -> bool:
        """Whether it is told of this."""
        return not self.events or event in self.events
