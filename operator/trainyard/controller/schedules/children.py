"""The TrainingRun of one start, ready to be created."""

from datetime import datetime

from trainyard.api import API_VERSION
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, SKIP_IF_DATASET_ANNOTATION
from trainyard.api.schedule.children import Object, ScheduleRef, child_name, child_spec, digest
from trainyard.api.schedule.status import CLOCK, Firing
from trainyard.api.schedule.trainingschedule import (
    CAUSE_ANNOTATION,
    ENV_SCHEDULED_TIME,
    ENV_TRIGGER_TIME,
    ENV_WINDOW_END,
    ENV_WINDOW_START,
    SCHEDULE_LABEL,
    SCHEDULE_UID_LABEL,
    SCHEDULED_TIME_ANNOTATION,
    TEMPLATE_DIGEST_ANNOTATION,
    VARIANT_LABEL,
    Variant,
)


def build_child(
    schedule: ScheduleRef, variant: Variant | None, firing: Firing, *, now: datetime, known_dataset: str | None
) -> Object:
    """The TrainingRun. `known_dataset` is the digest of the data with which there is nothing new to learn."""
    spec = child_spec(schedule, variant, firing.overrides)
    made_from = digest(spec)
    _hand_over_times(spec, firing, now)
    template = schedule.spec.template.metadata
    labels = {**template.labels, **(variant.labels if variant else {})}
    labels |= {MANAGED_BY_LABEL: MANAGED_BY, SCHEDULE_LABEL: schedule.name, SCHEDULE_UID_LABEL: schedule.uid}
    annotations = {
        **template.annotations,
        CAUSE_ANNOTATION: firing.started_by,
        SCHEDULED_TIME_ANNOTATION: firing.time,
        TEMPLATE_DIGEST_ANNOTATION: made_from,
    }
    if variant is not None:
        labels[VARIANT_LABEL] = variant.name
    if known_dataset is not None:
        annotations[SKIP_IF_DATASET_ANNOTATION] = known_dataset
    owner = {
        "apiVersion": API_VERSION,
        "kind": "TrainingSchedule",
        "name": schedule.name,
        "uid": schedule.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {
            "name": child_name(schedule.name, variant.name if variant else None, firing),
            "namespace": schedule.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _hand_over_times(spec: Object, firing: Firing, now: datetime) -> None:
    """The start's times as environment variables; one that the template sets itself stays as it is."""
    times = {
        ENV_SCHEDULED_TIME: firing.time,
        ENV_TRIGGER_TIME: firing.time if firing.started_by != CLOCK else None,
        ENV_WINDOW_START: firing.window_start,
        ENV_WINDOW_END: firing.time,
    }
    template = spec.setdefault("podTemplate", {})
    env = list(template.get("env") or [])
    given = {e.get("name") for e in env}
    env += [{"name": name, "value": value} for name, value in times.items() if value and name not in given]
    template["env"] = env
