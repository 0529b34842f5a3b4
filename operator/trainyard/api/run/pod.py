"""How and where the pods run: resources, placement, storage and what is added to the pod template.

Types that Kubernetes defines itself (affinity, volumes, env) are passed through as they are: the API server checks them
when the Job is made, and its answer comes back in the run's status.
"""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.base import ApiModel, DnsLabel, DnsSubdomain, Quantity, Rule, opaque, opaque_items
from trainyard.api.names import RESERVED_ENV_PREFIXES, TRAINER_CONTAINER
from trainyard.api.run.workspace import Workspace
from trainyard.api.run.yield_from import YieldFrom

LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
LabelMap = dict[str, LabelValue]
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def _keys_are_labels(field: str, keys: Callable[[Any], Iterable[str]]) -> Rule:
    return Rule(
        None,  # keys have no bound that CEL's cost could be reckoned from; the operator refuses them in the same words
        f"{field} has a key that is no name of a label: at most 63 of a-z, A-Z, 0-9, -, _ and ., after an optional domain and /",
        lambda part: all(_KEY.fullmatch(key) for key in keys(part)),
    )


ENV_NAME_LIMIT = 256


class Resources(ApiModel):
    """A container's resources, as in a pod."""

    requests: dict[str, Quantity] = Field(default_factory=dict, max_length=16, description="Least that must be free.")
    limits: dict[str, Quantity] = Field(
        default_factory=dict, max_length=16, description="Most that may be used; GPUs stand here (nvidia.com/gpu: 1)."
    )


class StepResources(ApiModel):
    """Resources of the steps around the training. They get no GPU unless it is asked for here."""

    prepare: Resources | None = Field(None, description="Resources of the prepare step.")
    evaluate: Resources | None = Field(
        None, description="Resources of the evaluation. Default: those of the training step without its GPUs."
    )


class Toleration(ApiModel):
    """A pod's toleration of a taint."""

    key: str = Field(
        "",
        max_length=316,
        description="Key of the taint; empty with operator Exists means any, which the chart's admission policy refuses unless it "
        "is told otherwise.",
    )
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Exists ignores the value.")
    value: str = Field("", max_length=63, description="Value of the taint.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="Empty means any effect."
    )
    toleration_seconds: int | None = Field(None, ge=0, description="How long NoExecute is tolerated.")


class Placement(ApiModel):
    """On which node the steps run. It holds for every step, because they share volumes that may exist on one node only."""

    node_names: list[DnsSubdomain] = Field(
        default_factory=list,
        max_length=64,
        description="Short form: only nodes with these hostname labels, and the taint dedicated=<name>:NoSchedule tolerated.",
    )
    node_selector: LabelMap = Field(default_factory=dict, max_length=32, description="Labels the node must have.")
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32, description="Taints that are tolerated.")
    affinity: dict[str, Any] | None = Field(None, description="A pod's affinity.", json_schema_extra=opaque)
    priority_class_name: str = Field("", max_length=253, description="PriorityClass of the pods.")
    runtime_class_name: str = Field("", max_length=253, description="RuntimeClass of the pods, for example nvidia.")
    scheduler_name: str = Field("", max_length=253, description="Scheduler; empty means the cluster's default.")
    yield_from: list[YieldFrom] = Field(
        default_factory=list,
        max_length=4,
        description="Deployments that are scaled to 0 before the training begins, and back when no training needs their place.",
    )


def _named(variable: dict[str, Any]) -> dict[str, Any]:
    name = variable.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= ENV_NAME_LIMIT:
        raise PydanticCustomError(
            "env_name",
            "name is {name}: must be a text of 1 to {limit} characters",
            {"name": repr(name), "limit": ENV_NAME_LIMIT},
        )
    return variable


EnvVar = Annotated[dict[str, Any], AfterValidator(_named)]


_ENV_SCHEMA: dict[str, Any] = {
    "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": ENV_NAME_LIMIT,
                "description": "Name of the variable.",
            }
        },
        "required": ["name"],
    }
}


class InitContainer(ApiModel):
    """A container that ends before the trainer's starts. Its security context is the trainer's."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.name != '{TRAINER_CONTAINER}'",
            f"an init container is called {TRAINER_CONTAINER}, as the trainer's own: give it another name",
            lambda c: c.name != TRAINER_CONTAINER,
        ),
    )

    name: DnsLabel = Field(description="Its name, unique in the pod.")
    image: str = Field(min_length=1, max_length=512, description="Its image.")
    command: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="As in a pod.",
        json_schema_extra={"items": {"type": "string", "maxLength": 4096}},
    )
    args: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="As in a pod.",
        json_schema_extra={"items": {"type": "string", "maxLength": 4096}},
    )
    env: list[EnvVar] = Field(
        default_factory=list, max_length=32, description="As in a pod.", json_schema_extra=_ENV_SCHEMA
    )
    env_from: list[dict[str, Any]] = Field(
        default_factory=list, max_length=8, description="As in a pod.", json_schema_extra=opaque_items
    )
    resources: Resources = Field(default_factory=Resources, description="What it asks for.")
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=16,
        description="As in a pod: volumes of podTemplate.volumes, and the run's own, such as trainyard-checkpoints.",
        json_schema_extra=opaque_items,
    )


class PodTemplate(ApiModel):
    """What is added to every pod of the run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.env) || self.env.all(e, !has(e.name) || "
            + "".join(f"!e.name.startsWith('{p}') && " for p in RESERVED_ENV_PREFIXES).removesuffix(" && ")
            + ")",
            "podTemplate.env must not set variables that begin with TRAINYARD_ or KUBEFLOW_TRAINER_SERVER_: the operator "
            "sets those; choose another name",
            lambda t: not any(str(e.get("name", "")).startswith(RESERVED_ENV_PREFIXES) for e in t.env),
        ),
        Rule(
            None,  # keys of a list map
            "two of podTemplate.initContainers have the same name: rename one of them",
            lambda t: len({c.name for c in t.init_containers}) == len(t.init_containers),
        ),
        _keys_are_labels("podTemplate.labels", lambda t: t.labels),
        _keys_are_labels("podTemplate.annotations", lambda t: t.annotations),
    )

    labels: LabelMap = Field(default_factory=dict, max_length=32, description="Labels of the pods.")
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32, description="Annotations of the pods.")
    env: list[EnvVar] = Field(
        default_factory=list,
        max_length=64,
        description="Environment variables of the container, as in a pod.",
        json_schema_extra=_ENV_SCHEMA,
    )
    env_from: list[dict[str, Any]] = Field(
        default_factory=list, max_length=16, description="As in a pod.", json_schema_extra=opaque_items
    )
    volumes: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=32,
        description="Further volumes, as in a pod. Under the chart's admission policy: of the kinds that the restricted Pod "
        "Security Standard knows.",
        json_schema_extra=opaque_items,
    )
    volume_mounts: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=32,
        description="Where they are mounted, as in a pod.",
        json_schema_extra=opaque_items,
    )
    init_containers: list[InitContainer] = Field(
        default_factory=list,
        max_length=4,
        description="Containers that end, one after the other, before the trainer's starts: in every pod of the run.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    image_pull_secrets: list[dict[str, Any]] = Field(
        default_factory=list, max_length=16, description="As in a pod.", json_schema_extra=opaque_items
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field("", description="As in a pod.")
    service_account_name: str = Field(
        "",
        max_length=253,
        description="ServiceAccount of the pods, for what the cloud or the registry gives it. Its token is mounted only by a "
        "projected volume that asks for it, which the chart's admission policy refuses unless it is told otherwise.",
    )
    security_context: dict[str, Any] | None = Field(
        None,
        description="The pod's security context; given fields replace the default (non-root 1000:1000, RuntimeDefault). "
        "What may be given is up to the chart's admission policy and to the namespace's Pod Security.",
        json_schema_extra=opaque,
    )
    container_security_context: dict[str, Any] | None = Field(
        None,
        description="The container's security context; given fields replace the default (read-only root, no capabilities). "
        "What may be given is up to the chart's admission policy and to the namespace's Pod Security.",
        json_schema_extra=opaque,
    )
    termination_grace_period_seconds: int = Field(
        120, ge=1, le=86400, description="Seconds between SIGTERM and SIGKILL: the time a checkpoint may take."
    )
    shared_memory: Quantity = Field("1Gi", description="Size limit of /dev/shm, which data loaders use.")


AccessMode = Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]


class Claim(ApiModel):
    """A PersistentVolumeClaim that is made, or shared by its name."""

    claim_name: DnsSubdomain | None = Field(
        None,
        description="Name of the claim. Runs that name the same claim share it. With size it is made when it does not exist; "
        "without size it must exist. Empty: a claim of this run's own.",
    )
    size: Quantity | None = Field(None, description="Size of a claim that is made. Default without a claimName: 10Gi.")
    storage_class_name: str | None = Field(
        None, max_length=253, description="StorageClass; absent means the default one."
    )
    access_modes: list[AccessMode] = Field(
        default_factory=lambda: list[AccessMode](["ReadWriteOnce"]),
        min_length=1,
        max_length=3,
        description="Access modes of a claim that is made.",
    )
    retain: bool = Field(
        False,
        description="true: the claim outlives the run. false: it is deleted with the last run that uses it. A claim that "
        "Trainyard did not make is never deleted.",
    )


class Storage(ApiModel):
    """The run's volumes."""

    checkpoints: Claim = Field(
        default_factory=Claim, description="Prepared data, checkpoints and the final model live here."
    )
    cache: Claim | None = Field(
        None, description="Downloads of models and data (HF_HOME), best shared between runs. Absent: gone with the pod."
    )
    workspace: Workspace | None = Field(
        None, description="Files that spec.command finds in its working directory: a commit of a git repository."
    )
