"""The Job whose pod reads a dataset's lines from the run's volume and posts them to the operator.

The run is over and stays over: this Job is none of its steps, carries none of the labels by which those are found, and goes by
itself. Its pod is a step's pod otherwise, with the volume for reading, the run's own Secret and no Secret of the user's.
"""

import secrets

from trainyard.api import names
from trainyard.api.steps import export_step
from trainyard.controller.manifests.job import build_job
from trainyard.controller.manifests.metadata import Defaults, Object, RunRef

LIFE_SECONDS = 3600
KEPT_SECONDS = 60


def hand_over_job(run: RunRef, *, export: str, form: str, defaults: Defaults) -> Object:
    """`export` is the relay's id, `form` one of the store's formats."""
    job = build_job(run, step=export_step("lines"), attempt=1, defaults=defaults)
    labels = {names.MANAGED_BY_LABEL: names.MANAGED_BY}
    job["metadata"] |= {"name": f"{run.name}-lines-{secrets.token_hex(3)}", "labels": labels}
    template = job["spec"]["template"]
    # A policy of the network lets those pods out to the receiver that belong to a run.
    template["metadata"]["labels"] = {**run.spec.pod_template.labels, names.RUN_LABEL: run.name}
    job["spec"] |= {"activeDeadlineSeconds": LIFE_SECONDS, "ttlSecondsAfterFinished": KEPT_SECONDS}
    container = template["spec"]["containers"][0]
    container["command"] = ["python", "-m", "trainyard.trainer", "hand-over", "--format", form]
    base = defaults.receiver_url.rstrip("/")
    url = f"{base}/v1/exports/{run.namespace}/{run.name}/{run.uid}/{export}"
    container["env"].append({"name": names.ENV_HAND_OVER_URL, "value": url})
    for mount in container["volumeMounts"]:
        if mount["mountPath"] == names.CHECKPOINTS_MOUNT:
            mount["readOnly"] = True
    return job
