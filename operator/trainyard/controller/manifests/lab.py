"""What a script written for the lab finds in its pod: the lab's variables, and its configuration where it looks for it.

Only a training with a command of its own gets them; the built-in trainer reports by itself. What is secret comes from Secrets.
The key with which alerts are posted is the run's own token, because they are posted to the operator: it is the operator that
knows the receivers and their keys, and no pod does.
"""

from typing import Any

from trainyard.api import names
from trainyard.api.run.owner import model_name, user_id
from trainyard.controller.manifests.metadata import Defaults, Object, RunRef


def lab_environment(run: RunRef, *, step: str, attempt: int, defaults: Defaults) -> list[Object]:
    """Variables by the lab's names. Without a receiver there are no addresses, and the script posts nothing."""
    found: dict[str, Any] = {
        "JOB_ID": run.uid,
        "USER_ID": user_id(run.labels, run.namespace),
        "MODEL_NAME": model_name(run.spec),
        "DATASET_URL": _dataset_url(run),
        "JOB_TOKEN": _from_secret(names.config_secret_name(run.name), names.JOB_TOKEN_FIELD),
    }
    if defaults.receiver_url:
        base = defaults.receiver_url.rstrip("/")
        found["METRICS_API_URL"] = f"{base}{names.METRICS_PATH}?step={step}&attempt={attempt}"
        found["ALERT_API_URL"] = f"{base}{names.ALERTS_PATH}"
        found["INTERNAL_API_KEY"] = _from_secret(names.config_secret_name(run.name), names.JOB_TOKEN_FIELD)
    if run.spec.model is not None and run.spec.model.secret_ref is not None:
        found["HF_TOKEN"] = _from_secret(run.spec.model.secret_ref.name, "token")
    return [{"name": name, **(v if isinstance(v, dict) else {"value": v})} for name, v in found.items() if v]


def lab_config(volume: str) -> Object:
    """The mount of the run's file, as a file beside whatever the image has in that folder."""
    return {"name": volume, "mountPath": names.JOB_CONFIG, "subPath": "run.json", "readOnly": True}


def _dataset_url(run: RunRef) -> Object | str:
    """Of the first dataset that has an address a script can fetch; a signed one comes from its Secret."""
    for dataset in run.spec.datasets or ():
        if (dataset.storage_uri or "").startswith(("https://", "http://")):
            return _from_secret(dataset.secret_ref.name, "url") if dataset.secret_ref else dataset.storage_uri or ""
    return ""


def _from_secret(name: str, key: str) -> Object:
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": True}}}
