"""What a run names and does not bring along: Secrets, and claims that data and models are read from.

One walk over a spec, with the steps that need each. So a pod gets the Secrets of its own step and no others, and whoever looks
whether all is there looks for the same objects, under the same names of their fields.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from trainyard.api.base import SecretRef
from trainyard.api.run.trainingrun import TrainingRunSpec, phases_to_run
from trainyard.api.steps import (
    STEP_EVALUATE,
    STEP_PREPARE,
    STEP_PROMOTE,
    STEP_ROLLBACK,
    STEP_TRAIN,
    STEP_VALIDATE,
    base_of,
    train_step,
)

Kind = Literal["Secret", "PersistentVolumeClaim"]


@dataclass(frozen=True)
class Reference:
    """An object in the run's namespace that must be there already."""

    kind: Kind
    field: str
    """Where it is named; items of lists by their own names, as in `spec.datasets[corpus].secretRef.name`."""
    name: str
    steps: frozenset[str]
    """Those that open it, where the run has them; a training of a phase as `train-<phase>`."""


def references(spec: TrainingRunSpec) -> Iterator[Reference]:
    """All that must be there: the sources, and volumes that the run is not to make."""
    yield from sources(spec)
    steps = frozenset({STEP_VALIDATE, STEP_PREPARE, *_trainings(spec), STEP_EVALUATE})
    for field, claim in (("checkpoints", spec.storage.checkpoints), ("cache", spec.storage.cache)):
        if claim is not None and claim.claim_name and claim.size is None:
            yield Reference("PersistentVolumeClaim", f"spec.storage.{field}.claimName", claim.claim_name, steps)


def sources(spec: TrainingRunSpec) -> Iterator[Reference]:
    """What steps read with, read from, and send results with."""
    first, last = _trainings(spec)[0], _trainings(spec)[-1]
    fetching = {STEP_PREPARE, STEP_VALIDATE}
    # Mode Dataset stops before anything is prepared for a model.
    preparing = {STEP_PREPARE} if spec.mode != "Dataset" else set()
    # A script may open whatever its run names.
    script = {STEP_TRAIN} if spec.command else set()
    if (model := spec.model) is not None:
        uris: dict[str, str | None] = {"storageUri": model.storage_uri}
        if model.adapter is not None:
            uris["adapter.from"] = model.adapter.from_
        steps = {STEP_VALIDATE, *preparing, *script}
        if model.scratch is not None:
            uris["scratch.tokenizer.storageUri"] = model.scratch.tokenizer.storage_uri
        if model.storage_uri is not None:
            # Later phases start from the one before, and the last is compared with that.
            steps |= {first} | ({STEP_EVALUATE} if first == last else set())
        yield from _at("spec.model", model.secret_ref, steps, uris)
    if (champion := spec.evaluation.compare_with) is not None:
        # Before the training it is looked whether it is there.
        judging = {STEP_PREPARE, STEP_EVALUATE} if spec.mode != "Dataset" else set()
        yield from _at(
            "spec.evaluation.compareWith", champion.secret_ref, judging, {"storageUri": champion.storage_uri}
        )
    if (harness := spec.evaluation.harness) is not None:
        asking = {STEP_PREPARE, STEP_EVALUATE} if spec.mode != "Dataset" else set()
        yield from _at("spec.evaluation.harness", None, asking, {"includeFrom": harness.include_from})
    for dataset in spec.datasets or ():
        field = f"spec.datasets[{dataset.name}]"
        yield from _at(field, dataset.secret_ref, fetching | script, dataset.addresses())
    if (workspace := spec.storage.workspace) is not None:
        # Not for the script: it gets the files, and whoever wrote them is not to have the login.
        for kind, source in (("git", workspace.git), ("script", workspace.script)):
            yield from _at(f"spec.storage.workspace.{kind}", source.secret_ref if source else None, {STEP_PREPARE})
    if (upload := spec.dataset_upload) is not None:
        yield from _at("spec.datasetUpload", upload.secret_ref, {STEP_PREPARE} | script)
    if spec.tracking is not None and (mlflow := spec.tracking.mlflow) is not None:
        tracked = {STEP_PREPARE, *_trainings(spec), STEP_EVALUATE}
        yield from _at("spec.tracking.mlflow", mlflow.secret_ref, tracked)
    for notification in spec.notifications or ():
        # Opened by the operator alone; no pod gets it.
        yield from _at(f"spec.notifications[{notification.name}]", notification.secret_ref, ())
    for export in spec.all_exports():
        # Before the training a target is asked whether it would take the result; after it, the result is sent.
        steps = {STEP_PREPARE, export.step} | ({STEP_PROMOTE, STEP_ROLLBACK} if export.promotes else set())
        yield from _at(export.field, getattr(export.target, "secret_ref", None), steps)
    for field, reward in spec.reward_models():
        steps = _judged(spec, field) | script
        if last in steps:
            steps.add(STEP_EVALUATE)
        if steps and spec.storage.cache is not None and reward.storage_uri.startswith("hf://"):
            steps |= preparing  # it is downloaded while no GPU waits
        yield from _at(field, reward.secret_ref, steps, {"storageUri": reward.storage_uri})
    for field, teacher in spec.teachers():
        learning = _taught(spec, field) | script
        if teacher.storage_uri is not None and learning:
            steps = learning | preparing | ({STEP_VALIDATE} if preparing else set())
            yield from _at(field, teacher.secret_ref, steps, {"storageUri": teacher.storage_uri})
        elif teacher.http is not None and learning:
            # Its answers are kept, so the training asks nobody.
            yield from _at(f"{field}.http", teacher.http.secret_ref, preparing | script)
    for field, judge in spec.http_judges():
        steps = _judged(spec, field) | script
        yield from _at(field, judge.secret_ref, steps | ({STEP_EVALUATE} if last in steps else set()))


def named(spec: TrainingRunSpec, kind: Kind, *, step: str | None = None) -> dict[str, str]:
    """Names of all sources of a kind, or of those that one step opens, each with the first field that names it."""
    found: dict[str, str] = {}
    for one in sources(spec):
        if one.kind == kind and (
            step is None or step in one.steps or (base_of(step) == STEP_ROLLBACK and STEP_ROLLBACK in one.steps)
        ):
            found.setdefault(one.name, one.field)
    return found


def claim_of_uri(uri: str | None) -> str | None:
    """The claim of a `pvc://claim/path`."""
    return uri.removeprefix("pvc://").split("/", 1)[0] if uri and uri.startswith("pvc://") else None


def _at(
    field: str, secret: SecretRef | None, steps: Iterable[str], uris: Mapping[str, str | None] | None = None
) -> Iterator[Reference]:
    needed = frozenset(steps)
    if secret is not None:
        yield Reference("Secret", f"{field}.secretRef.name", secret.name, needed)
    for place, uri in (uris or {}).items():
        if claim := claim_of_uri(uri):
            yield Reference("PersistentVolumeClaim", f"{field}.{place}", claim, needed)


def _trainings(spec: TrainingRunSpec) -> tuple[str, ...]:
    return tuple(map(train_step, phases_to_run(spec) or (None,)))


def _judged(spec: TrainingRunSpec, field: str) -> set[str]:
    """The trainings that the reward of this field judges: a phase's own rewards take the place of the run's."""
    own = {phase.name for phase in spec.phases or () if phase.training is not None and phase.training.rewards}
    return _of_field(spec, field, own)


def _taught(spec: TrainingRunSpec, field: str) -> set[str]:
    """The same of teachers."""
    own = {phase.name for phase in spec.phases or () if phase.training is not None and phase.training.teacher}
    return _of_field(spec, field, own)


def _of_field(spec: TrainingRunSpec, field: str, own: set[str]) -> set[str]:
    return {
        train_step(phase)
        for phase in phases_to_run(spec) or (None,)
        if field.startswith(f"spec.phases[{phase}]." if phase in own else "spec.training.")
    }
