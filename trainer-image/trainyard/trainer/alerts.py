"""`trigger_alert`, for a script of one's own: one alert in the lab's words to `$ALERT_API_URL`.

    from trainyard.trainer.alerts import trigger_alert

    trigger_alert("job_started", total_steps=1000)
    trigger_alert("job_completed", loss=0.25)
    trigger_alert("job_failed", error_message=str(error))

In a pod of Trainyard the address is the operator's, which tells each of these things once by itself, however often a script is
started again; what the script says of its end is added to it. Anywhere else the alert goes where the variables say. Nothing is
ever raised, and without `ALERT_API_URL`, `JOB_ID` or `USER_ID` nothing is sent: that is a run on somebody's own machine.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trainyard.api.addresses import told
from trainyard.api.run.notifications import ALERT_TYPES
from trainyard.trainer.log import say

TIMEOUT = 10.0
FIELDS = frozenset(
    (
        "status",
        "progress",
        "current_step",
        "total_steps",
        "loss",
        "duration",
        "error_message",
        "error_type",
        "model_name",
    )
)
_STATUS = {"job_completed": "completed", "job_failed": "failed", "job_cancelled": "failed"}


def receiver(environment: Mapping[str, str]) -> str:
    """Where alerts go; empty where address, job or user is missing, and none is sent."""
    return environment.get("ALERT_API_URL", "") if environment.get("JOB_ID") and environment.get("USER_ID") else ""


def trigger_alert(alert_type: str, *, environment: Mapping[str, str] = os.environ, **facts: Any) -> bool:
    """Send one alert; whether it has arrived.

    Args:
        alert_type: one of `ALERT_TYPES`.
        environment: for tests.
        facts: any of `FIELDS`; `duration` in milliseconds.
    """
    if not (url := receiver(environment)):
        return False
    if alert_type not in ALERT_TYPES:
        say(f"alert {alert_type!r} is not sent: it must be one of {', '.join(ALERT_TYPES)}")
        return False
    if unknown := facts.keys() - FIELDS:
        say(f"alert {alert_type}: {', '.join(sorted(unknown))} is not sent, the receiver knows no such field")
    body = {
        "type": alert_type,
        "job_id": environment["JOB_ID"],
        "user_id": environment["USER_ID"],
        "model_name": environment.get("MODEL_NAME", ""),
    }
    body |= {"status": _STATUS.get(alert_type, "running")}
    body |= {name: value for name, value in facts.items() if name in FIELDS and value is not None}
    if isinstance(body.get("error_message"), str):
        body["error_message"] = told(body["error_message"])
    headers = {"Content-Type": "application/json"}
    if key := environment.get("INTERNAL_API_KEY"):
        headers["X-API-Key"] = key
    return post(url, body, headers, what=f"alert {alert_type}")


def post(url: str, body: Mapping[str, Any], headers: Mapping[str, str], *, what: str) -> bool:
    """POST as JSON within the lab's ten seconds; a failure is said (of `what`, if that is not empty), and never raised."""
    try:
        data = json.dumps(body, default=str).encode()
        request = urllib.request.Request(url, data=data, headers=dict(headers), method="POST")
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        why = f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        why = str(getattr(error, "reason", error))
    if what:
        say(told(f"{what}: {urlsplit(url).hostname} did not take it ({why}); the training goes on"))
    return False
