"""What has to be there before a Job's pod can start: what keeps a Job from being made, and what is made for it. Pure.

A run that a queue holds, perhaps for days, takes nothing but a Job: its Secret and its claims are made when the queue has
released that.
"""

from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.kube.resources import PVCS, SECRETS
from trainyard.controller.manifests.config import config_hash, config_secret
from trainyard.controller.manifests.storage import ClaimUse, claim_manifest, ownership_patch
from trainyard.controller.runs.actions import Action, Apply, Create, Patch
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.status import Standing


def obstacle(seen: Observed, status: TrainingRunStatus) -> Standing | None:
    """Something that has to be there, or must not be, before a Job is made."""
    there = seen.prerequisites
    if seen.conflict is not None:
        return Standing(State.PENDING, Reason.NAME_CONFLICT, seen.conflict)
    for name, field in there.missing_secrets.items():
        text = (
            f"{field}: Secret {name} does not exist in namespace {seen.run.namespace}; create it, or correct the name"
        )
        return Standing(State.PENDING, Reason.MISSING_SECRET, text, stalled=True)
    for use in seen.claims:
        if use.name in there.claims:
            continue
        if not use.can_be_made:
            also = "; create it, or give a size to have it made" if use.claim else "; create it, or correct the name"
            text = (
                f"{use.field}: PersistentVolumeClaim {use.name} does not exist in namespace {seen.run.namespace}{also}"
            )
            return Standing(State.PENDING, Reason.MISSING_CLAIM, text, stalled=True)
        if _is_lost(use, status):
            text = (
                f"PersistentVolumeClaim {use.name} with this run's checkpoints has disappeared; restore it, or delete the "
                "run and apply it again to start from the beginning"
            )
            return Standing(State.PENDING, Reason.MISSING_CLAIM, text, stalled=True)
    return None


def _is_lost(use: ClaimUse, status: TrainingRunStatus) -> bool:
    """Whether a claim that is not there held the work of a pod, so that an empty one must not take its place."""
    ran = any(s.state == "Succeeded" or any(a.node for a in s.attempts or ()) for s in status.steps or ())
    return ran and use.field.startswith("spec.storage.checkpoints")


def missing(seen: Observed, status: TrainingRunStatus) -> list[Action]:
    """The run's Secret, when it is not there or says something else than it should, and the claims that it makes by itself."""
    there = seen.prerequisites
    actions: list[Action] = []
    if there.config_hash != config_hash(seen.run, token=seen.token):
        secret = config_secret(seen.run, token=seen.token)
        actions.append(Create(SECRETS, secret) if there.config_hash is None else Apply(SECRETS, secret))
    actions += [
        Create(PVCS, claim_manifest(seen.run, use))
        for use in seen.claims
        if use.name not in there.claims and use.can_be_made and not _is_lost(use, status)
    ]
    return actions


def retention(seen: Observed) -> list[Action]:
    """Owners of the claims, in line with `retain`."""
    there = seen.prerequisites.claims
    return [
        Patch(PVCS, use.name, dict(change))
        for use in (seen.claims if there else ())
        if use.name in there and (change := ownership_patch(seen.run, use, dict(there[use.name])))
    ]
