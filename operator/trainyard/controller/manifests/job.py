"""The Job of one attempt of one step.

The Job never retries by itself (`backoffLimit: 0`, `restartPolicy: Never`): the operator does, by the reason of the
failure, and each attempt stays visible as a Job of its own. The podFailurePolicy changes nothing about that; it is there
because its rules make the Job's own condition name the exit code or the disruption, which is all that is left when the
pod has already been deleted.
"""

from typing import Any

from trainyard.api import names
from trainyard.api.exitcodes import ExitCode
from trainyard.api.references import named
from trainyard.api.run.pod import Resources
from trainyard.api.steps import STEP_EVALUATE, STEP_PREPARE, STEP_TRAIN, is_train, step_arguments, step_named
from trainyard.controller.manifests.lab import lab_config, lab_environment
from trainyard.controller.manifests.metadata import Defaults, Object, RunRef, child_labels, owner_reference
from trainyard.controller.manifests.placement import extended_resources, placement_fields
from trainyard.controller.manifests.storage import cache_name, checkpoints_name, source_claims

USER_ID = 1000
"""The trainer's user and group; volumes get it as fsGroup."""

LIGHT_STEP = Resources(requests={"cpu": "100m", "memory": "512Mi"})
"""Requests of the steps that only read and write data, where the spec says nothing."""

_READ_BY_OPERATOR = sorted(code.value for code in ExitCode if code is not ExitCode.OK)


def build_job(run: RunRef, *, step: str, attempt: int, defaults: Defaults) -> Object:
    """The Job, ready to be created."""
    labels = child_labels(run) | {names.STEP_LABEL: step, names.ATTEMPT_LABEL: str(attempt)}
    queue = {k: run.labels[k] for k in (names.QUEUE_LABEL, names.QUEUE_PRIORITY_LABEL) if k in run.labels}
    pods = pods_of_step(run, step)
    spec: Object = {
        "backoffLimit": 0,
        "completions": pods,
        "parallelism": pods,
        **({"completionMode": "Indexed"} if pods > 1 else {}),
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.TRAINER_CONTAINER,
                        "operator": "In",
                        "values": _READ_BY_OPERATOR,
                    },
                },
            ]
        },
        "template": {
            "metadata": {
                "labels": {**run.spec.pod_template.labels, **labels},
                "annotations": dict(run.spec.pod_template.annotations),
            },
            "spec": _pod_spec(run, step=step, attempt=attempt, defaults=defaults),
        },
    }
    if names.QUEUE_LABEL in queue:
        # Kueue admits a Job by clearing this field; nobody else here touches it again.
        spec["suspend"] = True
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(run.name, step, attempt),
            "namespace": run.namespace,
            "labels": {**queue, **labels},
            "ownerReferences": [owner_reference(run)],
        },
        "spec": spec,
    }


def pods_of_step(run: RunRef, step: str) -> int:
    """How many pods work on a step at once."""
    return run.spec.num_nodes if step_named(step).several_pods else 1


def build_service(run: RunRef) -> Object:
    """The headless Service that gives the pods of a training names, also before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(run.name),
            "namespace": run.namespace,
            "labels": child_labels(run),
            "ownerReferences": [owner_reference(run)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_UID_LABEL: run.uid},
            "ports": [{"name": "rendezvous", "port": names.MASTER_PORT, "targetPort": names.MASTER_PORT}],
        },
    }


def step_resources(run: RunRef, step: str) -> Resources:
    """What the step's container asks for. A step without devices that has a model to run gets the rest of the training's."""
    training, others = run.spec.resources, run.spec.step_resources
    if step_named(step).gets_devices:
        return training
    export = next((one for one in run.spec.all_exports() if one.step == step), None)
    if export is not None and export.resources is not None:
        return export.resources
    if step == STEP_EVALUATE and others.evaluate is not None:
        return others.evaluate
    if step != STEP_EVALUATE and not (export is not None and export.row.runs_model):
        return others.prepare or LIGHT_STEP
    devices = set(extended_resources(training))
    return Resources(
        requests={k: v for k, v in training.requests.items() if k not in devices},
        limits={k: v for k, v in training.limits.items() if k not in devices},
    )


def resources_field(run: RunRef, step: str) -> str:
    """Where in the spec a step's resources stand, for messages."""
    export = next((one for one in run.spec.all_exports() if one.step == step), None)
    if export is not None:
        return f"spec.exports[{export.name}].resources"
    if is_train(step) or (step == STEP_EVALUATE and run.spec.step_resources.evaluate is None):
        return "spec.resources"
    return f"spec.stepResources.{STEP_EVALUATE if step == STEP_EVALUATE else STEP_PREPARE}"


def _pod_spec(run: RunRef, *, step: str, attempt: int, defaults: Defaults) -> Object:
    template = run.spec.pod_template
    volumes, mounts = _volumes(run, step)
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        **(template.container_security_context or {}),
    }
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
            **(template.security_context or {}),
        },
        **placement_fields(run.spec.placement, run.spec.resources),
        "containers": [
            {
                **_container_image_and_command(run, step=step, defaults=defaults),
                "name": names.TRAINER_CONTAINER,
                "imagePullPolicy": template.image_pull_policy or defaults.image_pull_policy,
                "env": [*template.env, *_environment(run, step=step, attempt=attempt, defaults=defaults)],
                "envFrom": list(template.env_from),
                "resources": _container_resources(step_resources(run, step)),
                "volumeMounts": [*mounts, *template.volume_mounts],
                # Without a record of the trainer's own, the end of the log is the next best account of a failure.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": security,
            }
        ],
        "volumes": [*volumes, *template.volumes],
    }
    if template.init_containers:
        spec["initContainers"] = [
            {
                **one.model_dump(by_alias=True, exclude_defaults=True, exclude={"resources"}),
                "imagePullPolicy": template.image_pull_policy or defaults.image_pull_policy,
                "resources": _container_resources(one.resources),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": security,
            }
            for one in template.init_containers
        ]
    if pods_of_step(run, step) > 1:
        spec["subdomain"] = names.service_name(run.name)
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = list(template.image_pull_secrets)
    if template.service_account_name:
        spec["serviceAccountName"] = template.service_account_name
    return spec


def _container_image_and_command(run: RunRef, *, step: str, defaults: Defaults) -> Object:
    if run.spec.command and step == STEP_TRAIN:
        own = {"image": run.spec.image, "command": list(run.spec.command), "args": list(run.spec.args)}
        return own | ({"workingDir": workspace_dir(run)} if run.spec.storage.workspace is not None else {})
    # With a script in an image of its own, the steps around it still need the built-in trainer's image.
    image = defaults.trainer_image if run.spec.command else run.spec.image or defaults.trainer_image
    return {"image": image, "command": ["python", "-m", "trainyard.trainer", *step_arguments(step)]}


def workspace_dir(run: RunRef) -> str:
    """Where the prepare step puts the files that the script works with."""
    return f"{names.work_dir(run.name, run.uid)}/{names.WORKSPACE_FOLDER}"


def _container_resources(resources: Resources) -> Object:
    limits = {k: str(v) for k, v in resources.limits.items()}
    requests = {k: str(v) for k, v in resources.requests.items()}
    for name in extended_resources(resources):
        # The API server wants devices in limits, with equal requests.
        value = limits.get(name, requests.get(name))
        if value is not None:
            limits[name] = value
            requests.pop(name, None)
    return {k: v for k, v in (("limits", limits), ("requests", requests)) if v}


def _environment(run: RunRef, *, step: str, attempt: int, defaults: Defaults) -> list[Object]:
    work_dir = names.work_dir(run.name, run.uid)
    variables: dict[str, str] = {
        names.ENV_RUN_NAME: run.name,
        names.ENV_NAMESPACE: run.namespace,
        names.ENV_RUN_UID: run.uid,
        names.ENV_STEP: step,
        names.ENV_ATTEMPT: str(attempt),
        names.ENV_RUN_FILE: names.RUN_FILE,
        names.ENV_TOKEN_FILE: names.TOKEN_FILE,
        names.ENV_WORK_DIR: work_dir,
        names.ENV_DATA_DIR: f"{work_dir}/data",
        names.ENV_CHECKPOINT_DIR: f"{work_dir}/checkpoints",
        names.ENV_OUTPUT_DIR: f"{work_dir}/model",
        names.ENV_CACHE_DIR: names.CACHE_MOUNT,
        names.ENV_VOLUMES_DIR: names.VOLUMES_MOUNT,
        names.ENV_SECRETS_DIR: names.SECRETS_MOUNT,
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HF_HOME": f"{names.CACHE_MOUNT}/huggingface",
        "XDG_CACHE_HOME": f"{names.CACHE_MOUNT}/xdg",
        "TORCHINDUCTOR_CACHE_DIR": f"{names.CACHE_MOUNT}/inductor",
        "HOME": "/tmp",
    }
    if is_train(step):
        variables |= _group(run, step=step, attempt=attempt)
    if run.spec.storage.workspace is not None:
        variables[names.ENV_WORKSPACE_DIR] = workspace_dir(run)
    if defaults.receiver_url:
        base = defaults.receiver_url.rstrip("/")
        variables[names.ENV_PROGRESS_URL] = f"{base}/v1/runs/{run.namespace}/{run.name}/{run.uid}/progress"
        if run.spec.command and step == STEP_TRAIN:
            # transformers reports to this address by itself; the built-in trainer has better numbers of its own.
            report = f"{base}/v1/kubeflow/{run.namespace}/{run.name}/{run.uid}?step={step}&attempt={attempt}"
            variables[names.ENV_KUBEFLOW_URL] = report
            variables[names.ENV_KUBEFLOW_TOKEN] = names.TOKEN_FILE
    # A user's own HF_HOME and the like win; the TRAINYARD_ names cannot be set by users (refused by the CRD).
    taken = {e.get("name") for e in run.spec.pod_template.env}
    all_of_them: list[Object] = [{"name": k, "value": v} for k, v in variables.items()]
    if run.spec.command and step == STEP_TRAIN:
        all_of_them += lab_environment(run, step=step, attempt=attempt, defaults=defaults)
    return [entry for entry in all_of_them if entry["name"] not in taken]


def _group(run: RunRef, *, step: str, attempt: int) -> dict[str, str]:
    """Where the processes of one training meet; also in the words of torchrun, for scripts that are started by it."""
    if run.spec.world_size == 1:
        return {}
    first = f"{names.job_name(run.name, step, attempt)}-0.{names.service_name(run.name)}"
    nodes, processes = str(run.spec.num_nodes), str(run.spec.num_proc_per_node)
    group = {names.ENV_NUM_NODES: nodes, names.ENV_NUM_PROC_PER_NODE: processes}
    if run.spec.num_nodes > 1:
        group |= {names.ENV_MASTER_ADDR: first, names.ENV_MASTER_PORT: str(names.MASTER_PORT)}
    if run.spec.command:
        group |= {"PET_NNODES": nodes, "PET_NPROC_PER_NODE": processes}
    if run.spec.command and run.spec.num_nodes > 1:
        group |= {"PET_MASTER_ADDR": first, "PET_MASTER_PORT": str(names.MASTER_PORT)}
    return group


def _volumes(run: RunRef, step: str) -> tuple[list[Object], list[Object]]:
    volumes: list[Object] = []
    mounts: list[Object] = []

    def add(name: str, source: dict[str, Any], path: str, *, read_only: bool = False) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {}))

    def claim(name: str, *, read_only: bool = False) -> dict[str, Any]:
        return {"persistentVolumeClaim": {"claimName": name} | ({"readOnly": True} if read_only else {})}

    add(
        "trainyard-run",
        {"secret": {"secretName": names.config_secret_name(run.name)}},
        names.CONFIG_DIR,
        read_only=True,
    )
    if run.spec.command and step == STEP_TRAIN:
        mounts.append(lab_config("trainyard-run"))
    add("trainyard-checkpoints", claim(checkpoints_name(run)), names.CHECKPOINTS_MOUNT)
    cache = cache_name(run)
    add("trainyard-cache", claim(cache) if cache else {"emptyDir": {}}, names.CACHE_MOUNT)
    add("trainyard-tmp", {"emptyDir": {}}, "/tmp")
    shared_memory = {"medium": "Memory", "sizeLimit": str(run.spec.pod_template.shared_memory)}
    add("trainyard-shm", {"emptyDir": shared_memory}, "/dev/shm")
    for index, name in enumerate(source_claims(run, step)):
        add(f"trainyard-source-{index}", claim(name, read_only=True), f"{names.VOLUMES_MOUNT}/{name}", read_only=True)
    for index, name in enumerate(referenced_secrets(run, step)):
        add(
            f"trainyard-secret-{index}",
            {"secret": {"secretName": name}},
            f"{names.SECRETS_MOUNT}/{name}",
            read_only=True,
        )
    return volumes, mounts


def referenced_secrets(run: RunRef, step: str | None = None) -> dict[str, str]:
    """Secrets that the run needs, or one step of it, with the field that names each."""
    return named(run.spec, "Secret", step=step)
