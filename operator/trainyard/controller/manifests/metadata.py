"""The run as its children see it: labels and owner references that all of them carry, and what follows from the spec.

A spec with phases is dear to read, because each phase is a spec of its own. What the operator asks again and again (which
step comes after which, what each phase trains with) stands on `RunRef` and is computed once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from trainyard.api import API_VERSION
from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, RUN_LABEL, RUN_UID_LABEL
from trainyard.api.run.exports import Export
from trainyard.api.run.phases import Phase, overridden
from trainyard.api.run.training import Training
from trainyard.api.run.trainingrun import Metadata, TrainingRun, TrainingRunSpec, phases_to_run
from trainyard.api.run.versioning import owner_labels
from trainyard.api.steps import STEP_PROMOTE, export_step, train_step

Object = dict[str, Any]


@dataclass(frozen=True)
class PlannedStep:
    """A step of this run, and what has to have succeeded before it begins."""

    name: str
    after: frozenset[str] = frozenset()
    optional: bool = False
    """Whether the run succeeds without it. What comes after it does not begin then, and has to be optional too."""
    limit: int | None = None
    """How many failed attempts it may have; None for the run's own backoffLimit."""
    ends: frozenset[str] = frozenset()
    """What has to have ended before, however it did."""
    gated: bool = False
    """It begins only if the evaluation has found the result good enough."""


def in_a_row(names: Iterable[str]) -> tuple[PlannedStep, ...]:
    """Each step after the one before it."""
    names = tuple(names)
    return tuple(PlannedStep(name, frozenset(names[i - 1 : i] if i else ())) for i, name in enumerate(names))


def planned_steps(spec: TrainingRunSpec) -> tuple[PlannedStep, ...]:
    """The steps in a row, and after the last of them the exports, each after those that it depends on."""
    row = in_a_row(spec.steps())
    end = row[-1].name
    exports = tuple(
        PlannedStep(
            one.step,
            frozenset({end, *map(export_step, one.depends_on)}),
            optional=True,
            limit=one.backoff_limit,
            gated=spec.is_gated(one),
        )
        for one in spec.all_exports()
    )
    return (*row, *exports, *_promotion(spec, end))


def _promotion(spec: TrainingRunSpec, end: str) -> Iterator[PlannedStep]:
    """Aliases are set last of all, and only if nothing has failed that the run is not to be called a success without."""
    exports = spec.all_exports()
    if any(one.promotes for one in exports):
        needed = frozenset(one.step for one in exports if one.promotes or one.on_failure == "Fail")
        others = frozenset(one.step for one in exports) - needed
        limit = max(one.backoff_limit for one in exports if one.promotes)
        yield PlannedStep(STEP_PROMOTE, needed | {end}, True, limit, others, gated=spec.has_gates)


@dataclass(frozen=True)
class RunRef:
    """The run whose children are built."""

    name: str
    namespace: str
    uid: str
    spec: TrainingRunSpec
    raw_spec: Mapping[str, Any]
    """The spec as the API server returned it: what the trainer gets to read."""
    labels: Mapping[str, str]
    created: str = ""
    """creationTimestamp: where windows of data end, unless a schedule says otherwise."""
    steps: tuple[PlannedStep, ...] = ()
    """Every step, none before what it comes after. What builds a single child needs none."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], run: TrainingRun) -> Self:
        """From the object as the API server returned it, and what it was parsed to."""
        metadata = raw["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            spec=run.spec,
            raw_spec=raw["spec"],
            labels=run.metadata.labels,
            steps=planned_steps(run.spec),
            created=run.metadata.creation_timestamp,
        )

    def phase_of(self, step: str) -> Phase | None:
        """The phase that a step trains."""
        return next((p for p in self.spec.phases or () if train_step(p.name) == step), None)

    @cached_property
    def metadata(self) -> Metadata:
        """What names the run, as a manifest has it."""
        return Metadata(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            creationTimestamp=self.created,
            labels=dict(self.labels),
        )

    @cached_property
    def exports(self) -> Mapping[str, Export]:
        """By step: the exports."""
        return {one.step: one for one in self.spec.all_exports()}

    @cached_property
    def followers(self) -> Mapping[str, frozenset[str]]:
        """By step: those that can only begin once it has succeeded, at any distance."""
        found: dict[str, set[str]] = {step.name: set() for step in self.steps}
        for step in reversed(self.steps):
            for before in step.after | step.ends:
                found[before] |= {step.name, *found[step.name]}
        return {name: frozenset(later) for name, later in found.items()}

    def may_work_beside(self, step: str, other: str) -> bool:
        """Whether pods of both may exist at the same time. What is no step of this run may be in anybody's way."""
        followers = self.followers
        if step not in followers or other not in followers:
            return False
        return step != other and other not in followers[step] and step not in followers[other]

    @cached_property
    def trainings(self) -> Mapping[str, Training]:
        """By name of each phase that is run, in order: what it trains with. Empty for a run without phases."""
        wanted = phases_to_run(self.spec)
        phases = {phase.name: phase for phase in self.spec.phases or ()}
        return {name: overridden(self.spec.training, phases[name].training) for name in wanted}


@dataclass(frozen=True)
class Defaults:
    """What the operator's settings contribute to the children."""

    trainer_image: str
    receiver_url: str = ""
    """Base URL of the receiver as pods reach it; empty means that no progress is pushed."""
    image_pull_policy: str = "IfNotPresent"


def child_labels(run: RunRef) -> dict[str, str]:
    """Labels by which the children are found again."""
    ours = {MANAGED_BY_LABEL: MANAGED_BY, RUN_LABEL: run.name, RUN_UID_LABEL: run.uid}
    return owner_labels(run.spec.owner) | ours


def owner_reference(run: RunRef, *, controller: bool = True) -> Object:
    """Makes the garbage collector delete the child with the run.

    A claim that several runs share has several owners, of which none is the controller.
    """
    reference: Object = {"apiVersion": API_VERSION, "kind": "TrainingRun", "name": run.name, "uid": run.uid}
    return reference | ({"controller": True, "blockOwnerDeletion": True} if controller else {})
