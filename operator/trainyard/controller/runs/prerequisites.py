"""What has to be there before a Job's pod can start: what keeps a Job from being made, and what is made for it. Pure.

A run that a queue holds, perhaps for days, takes nothing but a Job: its Secret and its claims are made when the queue has
released that.
"""

from trainyard.api import names
from trainyard.api.conditions import Reason, State
from trainyard.api.run.status import TrainingRunStatus
from trainyard.controller.kube.resources import PVCS, SECRETS, SERVICES
from trainyard.controller.manifests.config import config_hash, config_secret
from trainyard.controller.manifests.storage import ClaimUse, claim_manifest, is_of_somebody_else, ownership_patch
from trainyard.controller.runs.actions import Action, Create, Delete, Patch
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.status import Standing


def obstacle(seen: Observed, status: TrainingRunStatus) -> Standing | None:
    """Something that has to be there, or must not be, before a Job is made."""
    there = seen.prerequisites
    if seen.conflict is not None:
        return Standing(State.PENDING, Reason.NAME_CONFLICT, seen.conflict, stalled=seen.conflict_lasts)
    if (taken := _taken(seen)) is not None:
        return Standing(State.PENDING, Reason.NAME_CONFLICT, taken, stalled=True)
    for name, field in there.missing_secrets.items():
        text = (
            f"{field}: Secret {name} does not exist in namespace {seen.run.namespace}; create it, or correct the name"
        )
        return Standing(State.PENDING, Reason.MISSING_SECRET, text, stalled=True)
    for use in seen.claims:
        if fault := _unusable(seen, use, status):
            return Standing(State.PENDING, Reason.MISSING_CLAIM, fault, stalled=True)
    return None


def _taken(seen: Observed) -> str | None:
    """An object of somebody else under a name that the run needs."""
    there, run = seen.prerequisites, seen.run.name
    for kind, name, held in (
        ("Secret", names.config_secret_name(run), there.config),
        ("Service", names.service_name(run), there.service),
    ):
        if held is not None and not held.owned:
            return f"{kind} {name} exists and does not belong to this run; delete or rename it"
    for use in seen.claims:
        if is_of_somebody_else(use, there.claims.get(use.name)):
            return (
                f"PersistentVolumeClaim {use.name} exists and was not made by Trainyard: name it in {use.field} to use it, "
                "or delete or rename it"
            )
    return None


def _unusable(seen: Observed, use: ClaimUse, status: TrainingRunStatus) -> str | None:
    """Why no pod can work with this claim."""
    if use.name in dying(seen):
        return f"{use.field}: PersistentVolumeClaim {use.name} is being deleted; the run goes on when one of that name is there"
    if use.name in seen.prerequisites.claims:
        return None
    if not use.can_be_made:
        also = "; create it, or give a size to have it made" if use.claim else "; create it, or correct the name"
        where = f"does not exist in namespace {seen.run.namespace}"
        return f"{use.field}: PersistentVolumeClaim {use.name} {where}{also}"
    if _is_lost(use, status):
        return (
            f"PersistentVolumeClaim {use.name} with this run's checkpoints has disappeared; restore it, or delete the "
            "run and apply it again to start from the beginning"
        )
    return None


def dying(seen: Observed) -> list[str]:
    """Claims of the run that have been deleted and are there only until their last pod has ended."""
    there = seen.prerequisites.claims
    if not there:
        return []
    return [c.name for c in seen.claims if c.name in there and "deletionTimestamp" in there[c.name]["metadata"]]


def _is_lost(use: ClaimUse, status: TrainingRunStatus) -> bool:
    """Whether a claim that is not there held the work of a pod, so that an empty one must not take its place."""
    ran = any(s.state == "Succeeded" or any(a.node for a in s.attempts or ()) for s in status.steps or ())
    return ran and use.field.startswith("spec.storage.checkpoints")


def missing(seen: Observed, status: TrainingRunStatus) -> list[Action]:
    """The run's Secret, when it is not there or says something else than it should, and the claims that it makes by itself."""
    there = seen.prerequisites
    actions: list[Action] = []
    if there.config is None:
        actions.append(Create(SECRETS, config_secret(seen.run, token=seen.token)))
    elif there.config.owned and there.config.made_from != config_hash(seen.run, token=seen.token):
        secret = config_secret(seen.run, token=seen.token)
        metadata = {"resourceVersion": there.config.version, "annotations": secret["metadata"]["annotations"]}
        body = {"metadata": metadata, "stringData": secret["stringData"]}
        actions.append(Patch(SECRETS, secret["metadata"]["name"], body))
    actions += [
        Create(PVCS, claim_manifest(seen.run, use))
        for use in seen.claims
        if use.name not in there.claims and use.can_be_made and not _is_lost(use, status)
    ]
    return actions


def surroundings(seen: Observed) -> list[Delete]:
    """What was made for the run besides Jobs and claims, to be deleted with them; of what others made, nothing."""
    there, run = seen.prerequisites, seen.run.name
    held = ((SECRETS, names.config_secret_name(run), there.config), (SERVICES, names.service_name(run), there.service))
    return [Delete(kind, name, one.uid, "Background") for kind, name, one in held if one is not None and one.owned]


def retention(seen: Observed) -> list[Action]:
    """Owners of the claims, in line with `retain`."""
    there = seen.prerequisites.claims
    return [
        Patch(PVCS, use.name, dict(change))
        for use in (seen.claims if there else ())
        if use.name in there and (change := ownership_patch(seen.run, use, dict(there[use.name])))
    ]
