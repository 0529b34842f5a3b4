"""Names that more than one part of Trainyard spells: labels, annotations, environment variables, paths.

Kept in one place because a label that the operator writes and a selector that reads it differently lose a Job without
any error message.
"""

import base64
import hashlib

from trainyard.api import GROUP

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "trainyard"
RUN_LABEL = f"{GROUP}/run"
"""Name of the TrainingRun; on every child. Names longer than 63 characters are refused by the CRD."""
RUN_UID_LABEL = f"{GROUP}/run-uid"
STEP_LABEL = f"{GROUP}/step"
ATTEMPT_LABEL = f"{GROUP}/attempt"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
RETAIN_ANNOTATION = f"{GROUP}/retain"
"""On a PersistentVolumeClaim: some run asked for `retain: true`, so no run may own (and thereby delete) it."""
SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"
CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""On a run: stop it for good, as Cancelled, after its pod has written a checkpoint. The value says why."""
APPROVED_ANNOTATION = f"{GROUP}/approved"
"""On a run with `spec.cost.requireApproval`: it may begin. The value says why, or who says so."""
SKIP_IF_DATASET_ANNOTATION = f"{GROUP}/skip-if-dataset"
"""On a run: end it before the training if its prepared data have this digest, because that has been trained already."""

ROLLBACK_ANNOTATION = f"{GROUP}/rollback"
"""On a run that has ended and whose result was promoted: take that back. A new value (the time, say) asks once more."""

GIT_COMMIT_LABEL = f"{GROUP}/git-commit"
"""On a run: the commit its manifest or its data came from. Goes into `status.provenance`."""

FIELD_MANAGER = "trainyard"
TRAINER_CONTAINER = "trainer"

CONFIG_DIR = "/etc/trainyard"
RUN_FILE = f"{CONFIG_DIR}/run.json"
TOKEN_FILE = f"{CONFIG_DIR}/token"
CHECKPOINTS_MOUNT = "/trainyard/checkpoints"
CACHE_MOUNT = "/trainyard/cache"
VOLUMES_MOUNT = "/trainyard/volumes"
SECRETS_MOUNT = "/trainyard/secrets"
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message."""

WORKSPACE_FOLDER = "workspace"
"""In the run's folder: the files that its script works with."""

ENV_RUN_NAME = "TRAINYARD_RUN_NAME"
ENV_NAMESPACE = "TRAINYARD_NAMESPACE"
ENV_RUN_UID = "TRAINYARD_RUN_UID"
ENV_STEP = "TRAINYARD_STEP"
ENV_ATTEMPT = "TRAINYARD_ATTEMPT"
ENV_RUN_FILE = "TRAINYARD_RUN_FILE"
ENV_TOKEN_FILE = "TRAINYARD_TOKEN_FILE"
ENV_WORK_DIR = "TRAINYARD_WORK_DIR"
ENV_DATA_DIR = "TRAINYARD_DATA_DIR"
ENV_CHECKPOINT_DIR = "TRAINYARD_CHECKPOINT_DIR"
ENV_OUTPUT_DIR = "TRAINYARD_OUTPUT_DIR"
ENV_CACHE_DIR = "TRAINYARD_CACHE_DIR"
ENV_VOLUMES_DIR = "TRAINYARD_VOLUMES_DIR"
ENV_SECRETS_DIR = "TRAINYARD_SECRETS_DIR"
ENV_WORKSPACE_DIR = "TRAINYARD_WORKSPACE_DIR"
ENV_PROGRESS_URL = "TRAINYARD_PROGRESS_URL"
ENV_HAND_OVER_URL = "TRAINYARD_HAND_OVER_URL"
"""Where a dataset's lines are posted to, piece by piece."""
ENV_TERMINATION_LOG = "TRAINYARD_TERMINATION_LOG"
ENV_KUBEFLOW_URL = "KUBEFLOW_TRAINER_SERVER_URL"
ENV_KUBEFLOW_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"
ENV_SIMULATED_DEVICE_MEMORY = "SIMULATED_DEVICE_MEMORY"
"""Bytes: the CPU plays a device with so little memory. For tests, also in a pod."""
ENV_SIMULATED_GPU = "SIMULATED_GPU"
"""Not empty: the CPU stands in for a GPU that the run asks for. Set where there is none on purpose: locally, in the test cluster."""
ENV_NUM_NODES = "TRAINYARD_NUM_NODES"
ENV_NUM_PROC_PER_NODE = "TRAINYARD_NUM_PROC_PER_NODE"
ENV_NODE_INDEX = "JOB_COMPLETION_INDEX"
"""Set by the Job controller in the pods of an Indexed Job."""
ENV_MASTER_ADDR = "MASTER_ADDR"
ENV_MASTER_PORT = "MASTER_PORT"
MASTER_PORT = 29500
"""Where the first of several processes waits for the others: torch's own default."""
METRICS_PATH = "/api/training/local/metrics"
ALERTS_PATH = "/api/alerts/trigger"
"""Of the lab's API, below the receiver's base URL."""
JOB_CONFIG = "/workspace/config.json"
"""Where the lab's scripts look for the run; the same file as RUN_FILE."""
JOB_TOKEN_FIELD = "job-token"
"""Of the run's Secret."""
RESERVED_ENV_PREFIXES = ("TRAINYARD_", "KUBEFLOW_TRAINER_SERVER_")

PHASES_DIR = "phases"
"""Folder in the run's own one: each phase has one in there, with data, checkpoints and model."""
STEP_WORDS = ("prepare", "train", "evaluate", "validate", "export")
"""What the name of each step begins with."""
JOB_NAME_LIMIT = 60
"""Characters: a pod of a Job with several is called `<job>-<index>`, and that has to fit into a label of 63."""


def work_dir(run_name: str, run_uid: str, *, mount: str = CHECKPOINTS_MOUNT) -> str:
    """The run's own folder on its checkpoint volume. The uid keeps a re-created run of the same name apart."""
    return f"{mount}/{run_name}-{run_uid[:8]}"


def job_name(run_name: str, step: str, attempt: int) -> str:
    """Deterministic, so that two operators (or one that died half-way) can only ever make the same Job.

    One that is too long is cut, and what was cut is replaced by a digest of the whole. So is one that two runs could need:
    phase `prepare` of run `a` and the prepare step of run `a-train` would both be `a-train-prepare`.
    """
    name = f"{run_name}-{step}"
    two_ways = _ends_like_a_step(step)
    if not two_ways and len(f"{name}-{attempt}") <= JOB_NAME_LIMIT:
        return f"{name}-{attempt}"
    basis = f"{run_name}/{step}" if two_ways else name
    ending = f"-{hashlib.sha256(basis.encode()).hexdigest()[:8]}-{attempt}"
    return name[: JOB_NAME_LIMIT - len(ending)].rstrip("-") + ending


def _ends_like_a_step(step: str) -> bool:
    """Whether what follows one of its dashes is a step by itself, so that what stands before could end a run's name."""
    parts = step.split("-")
    return any(parts[n] in STEP_WORDS for n in range(1, len(parts)))


def config_secret_name(run_name: str) -> str:
    """The Secret with the run's file and its token."""
    return f"{run_name}-trainyard"


def service_name(run_name: str) -> str:
    """The headless Service by which the pods of one training find each other. A Service's name begins with a letter."""
    if run_name[:1].isdigit():
        return f"run-{hashlib.sha256(run_name.encode()).hexdigest()[:8]}-pods"
    return f"{run_name}-pods"


def checkpoints_claim_name(run_name: str) -> str:
    """The claim that is made when `spec.storage.checkpoints.claimName` is empty."""
    return f"{run_name}-checkpoints"


def cache_claim_name(run_name: str) -> str:
    """The claim that is made when `spec.storage.cache` is given without a name."""
    return f"{run_name}-cache"


def job_token(token: str, namespace: str, name: str, uid: str) -> str:
    """The run's token with what it is over, for an interface whose addresses name no run."""
    return f"{token}.{base64.urlsafe_b64encode('/'.join((namespace, name, uid)).encode()).rstrip(b'=').decode()}"


def history_name(run_name: str) -> str:
    """The ConfigMap with the run's curves."""
    return f"{run_name}-history"
