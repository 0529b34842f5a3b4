"""Manifests that cannot work, each with what a user has to be told.

`words` have to stand in the message: the field (or the place in the data), the value, and the way out. `jobs` is how many
Jobs may be made at most; `ends` whether the run fails for good or waits for somebody to put things right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e import runs
from tests.e2e.kube import Object
from tests.e2e.scripted import counting


@dataclass(frozen=True)
class Wrong:
    """One case. `reason` None: the API server refuses the manifest itself."""

    title: str
    build: Callable[[str, "Surroundings"], Object]
    words: tuple[str, ...]
    reason: str | None = None
    ends: str = ""
    """`Failed` or `Stalled`, or `Waiting` for what may well come right by itself; empty with reason None."""
    jobs: int = 1
    seconds: float = 60.0
    needs: tuple[str, ...] = field(default=())
    """What has to be arranged in the namespace first: `quota`, `samples`."""

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "-").replace(",", "").replace("'", "")


@dataclass(frozen=True)
class Surroundings:
    """Where the sources lie."""

    web: str
    closed: str
    """A URL at which nobody listens."""
    full_namespace: str
    """A namespace whose quota is used up."""


def _run(**spec: Any) -> Callable[[str, Surroundings], Object]:
    return lambda name, _: runs.tiny(name, **spec)


def _data(uri: str, **more: Any) -> Callable[[str, Surroundings], Object]:
    def build(name: str, around: Surroundings) -> Object:
        place = uri.format(web=around.web, closed=around.closed)
        return runs.tiny(name, datasets=[{"name": "corpus", "storageUri": place, **more}], backoffLimit=0)

    return build


def _training(**more: Any) -> Callable[[str, Surroundings], Object]:
    return lambda name, _: runs.tiny(name, training=more)


def _scratch(**more: Any) -> Callable[[str, Surroundings], Object]:
    return lambda name, _: runs.tiny(name, model={"scratch": {**runs.MODEL["scratch"], **more}})


def _renamed(title: str) -> Callable[[str, Surroundings], Object]:
    def build(_: str, __: Surroundings) -> Object:
        return runs.tiny(title)

    return build


AT_APPLY = (
    Wrong("Unknown field", _run(trainning={}), ("spec.trainning", "unknown field")),
    Wrong(
        "Two sources in a dataset",
        _run(datasets=[{"name": "both", "storageUri": "file:///a.txt", "inline": {"text": "b"}}]),
        ("spec.datasets[0]", "exactly one source", "second entry"),
    ),
    Wrong(
        "Two models",
        _run(model={**runs.MODEL, "storageUri": "hf://org/name"}),
        ("spec.model", "exactly one of storageUri", "keep one of them"),
    ),
    Wrong("Negative steps", _training(maxSteps=-5), ("spec.training.maxSteps", "-5", "greater than or equal to 1")),
    Wrong(
        "Steps and epochs",
        _training(numTrainEpochs=2),
        ("spec.training", "maxSteps and numTrainEpochs exclude each other", "remove one of them"),
    ),
    Wrong(
        "Unknown method",
        _training(method="Pretraining"),
        ("spec.training.method", "Pretraining", '"Pretrain", "CPT", "SFT"'),
    ),
    Wrong(
        "Nothing to train on",
        _run(datasets=[{"name": "held-out", "role": "Eval", "inline": {"text": "a"}}]),
        ("spec.datasets", "nothing to train on", "role Train"),
    ),
    Wrong(
        "Against Pod Security",
        _run(podTemplate={"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}),
        ("spec.podTemplate.securityContext.runAsNonRoot is false", "runAsUser is 0", "admissionPolicy.podSecurity"),
    ),
    Wrong("Name too long", _renamed("n" * 51), ("metadata.name", "at most 50 characters")),
)

AT_RUN_TIME = (
    Wrong(
        "Missing Secret",
        _data("{web}/text.txt", secretRef={"name": "no-such-secret"}),
        ("spec.datasets[corpus].secretRef.name", "Secret no-such-secret does not exist", "create it"),
        reason="MissingSecret",
        ends="Stalled",
        jobs=0,
    ),
    Wrong(
        "Missing claim",
        _data("pvc://no-such-claim/text.txt"),
        ("spec.datasets[corpus].storageUri", "PersistentVolumeClaim no-such-claim does not exist", "create it"),
        reason="MissingClaim",
        ends="Stalled",
        jobs=0,
    ),
    Wrong(
        "Missing claim for checkpoints",
        _run(storage={"checkpoints": {"claimName": "no-such-claim"}}),
        ("spec.storage.checkpoints.claimName", "no-such-claim does not exist", "give a size"),
        reason="MissingClaim",
        ends="Stalled",
        jobs=0,
    ),
    Wrong(
        "Impossible resources",
        _run(stepResources={"prepare": {"requests": {"memory": "900Gi"}}}),
        ("spec.stepResources.prepare", "memory: 900Gi", "the largest node has", "lower it"),
        reason="Unschedulable",
        ends="Stalled",
    ),
    Wrong(
        "A node that does not exist",
        _run(placement={"nodeNames": ["no-such-node"]}),
        ("spec.placement.nodeNames", "no-such-node", "there are arcanine, forge"),
        reason="Unschedulable",
        ends="Stalled",
    ),
    Wrong(
        "Nobody listens at the URL",
        _data("{closed}/text.txt"),
        ("dataset corpus", "/text.txt", "did not answer in 3 tries", "check that the server is up"),
        reason="BackoffLimitExceeded",
        ends="Failed",
    ),
    Wrong(
        "Unknown host",
        _data("https://no-such-host.trainyard.invalid/text.txt"),
        ("dataset corpus", "no-such-host.trainyard.invalid is unknown", "typing errors"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "404",
        _data("{web}/absent.txt"),
        ("dataset corpus", "/absent.txt", "HTTP 404", "check the address"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "401",
        _data("{web}/private/text.txt"),
        ("dataset corpus", "/private/text.txt", "HTTP 401", "give secretRef"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "Line 7 is not JSON",
        _data("{web}/line-seven.jsonl"),
        ("line-seven.jsonl:7", "not JSON", "correct or remove"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "Records of another format",
        _data("{web}/messages.jsonl"),
        ("messages.jsonl:1", "text"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "Empty dataset",
        _data("{web}/empty.txt"),
        ("dataset corpus", "/empty.txt", "holds no records"),
        "InvalidData",
        "Failed",
    ),
    Wrong(
        "A path that is not in the image",
        _data("file:///opt/trainyard/samples/no-such-folder/a.py"),
        ("dataset corpus", "/opt/trainyard/samples/no-such-folder/a.py does not exist"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "Wrong path on a claim",
        _data("pvc://samples/not-there.jsonl"),
        ("dataset corpus", "pvc://samples/not-there.jsonl does not exist"),
        reason="InvalidData",
        ends="Failed",
    ),
    Wrong(
        "Unknown architecture",
        _scratch(architecture="lama"),
        ("spec.model.scratch.architecture", "lama", "did you mean llama"),
        reason="InvalidConfig",
        ends="Failed",
        jobs=2,
        seconds=90,
    ),
    Wrong(
        "Unknown field of the architecture",
        _scratch(config={**runs.MODEL["scratch"]["config"], "hiden_size": 64}),
        ("spec.model.scratch.config", "hiden_size", "hidden_size"),
        reason="InvalidConfig",
        ends="Failed",
        jobs=2,
        seconds=90,
    ),
    Wrong(
        "Unknown extra argument",
        _training(extraArgs={"adam_beta_2": 0.9}),
        ("spec.training.extraArgs.adam_beta_2", "did you mean adam_beta2"),
        reason="InvalidConfig",
        ends="Failed",
        jobs=2,
        seconds=90,
    ),
    Wrong(
        "Extra argument of the wrong type",
        _training(extraArgs={"adam_beta2": "0.9"}),
        ("spec.training.extraArgs.adam_beta2", "'0.9'", "without quotes"),
        reason="InvalidConfig",
        ends="Failed",
        jobs=2,
        seconds=90,
    ),
    Wrong(
        "An image that does not exist",
        _run(image="localhost:5001/trainyard/no-such-image:1"),
        ("localhost:5001/trainyard/no-such-image:1", "spec.image"),
        reason="ImagePull",
        ends="Stalled",
    ),
    Wrong(
        "Missing priority class",
        _run(placement={"priorityClassName": "no-such-class"}),
        ("no-such-class", "PriorityClass"),
        reason="PodForbidden",
        ends="Stalled",
    ),
    Wrong(
        "Missing runtime class",
        _run(placement={"runtimeClassName": "no-such-runtime"}),
        ("no-such-runtime", "RuntimeClass"),
        reason="PodForbidden",
        ends="Stalled",
    ),
    Wrong(
        "A Secret in env that does not exist",
        _run(
            podTemplate={
                "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "a"}}}]
            }
        ),
        ("no-such-secret", "not found"),
        reason="ContainerConfig",
        ends="Stalled",
    ),
    Wrong(
        "A volume that does not exist",
        _run(
            podTemplate={
                "volumes": [{"name": "notes", "configMap": {"name": "no-such-map"}}],
                "volumeMounts": [{"name": "notes", "mountPath": "/notes"}],
            }
        ),
        ("no-such-map", "not found"),
        reason="Volume",
        ends="Waiting",
    ),
    Wrong(
        "A mount without its volume",
        _run(podTemplate={"volumeMounts": [{"name": "nothing", "mountPath": "/nothing"}]}),
        ("volumeMounts", "nothing"),
        reason="InvalidSpec",
        ends="Stalled",
        jobs=0,
    ),
    Wrong(
        "A command that does not exist",
        lambda name, _: counting(name, command=["no-such-program"], args=[]),
        ("spec.command", "no-such-program", "not found", "spec.image"),
        reason="InvalidConfig",
        ends="Failed",
    ),
    Wrong(
        "Quota used up",
        _run(),
        ("exceeded quota", "tried again by itself"),
        reason="QuotaExceeded",
        ends="Waiting",
        needs=("quota",),
    ),
)
