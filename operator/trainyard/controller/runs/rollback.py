"""Taking a promotion back: one more step of a run that has ended. Pure.

The annotation asks for it, the status remembers which value of it has been served. The step's Job lets each target's alias name
what it named before, if it still names this run's result; asking twice does no harm.
"""

from dataclasses import replace

from trainyard.api.run.status import (
    PROMOTIONS_KEPT,
    PromotionStatus,
    RollbackStatus,
    StepStatus,
    TrainingRunStatus,
)
from trainyard.api.steps import STEP_ROLLBACK, base_of
from trainyard.api.texts import one_line
from trainyard.controller.clock import rfc3339
from trainyard.controller.manifests.metadata import PlannedStep
from trainyard.controller.runs.ledger import last_attempt
from trainyard.controller.runs.observed import Observed
from trainyard.controller.runs.told import limit_of

ATTEMPTS = 3
"""Failures after which it is given up; another value of the annotation begins anew."""


def wanted(seen: Observed) -> RollbackStatus | None:
    """The request that is open."""
    if seen.rollback is None:
        return None
    token = one_line(seen.rollback, limit=limit_of(RollbackStatus, "token"))
    known = seen.status.rollback
    if known is not None and known.token == token:
        return known if known.state == "Running" else None
    done = sum(base_of(step.name) == STEP_ROLLBACK for step in seen.status.steps or ())
    return RollbackStatus(token=token, state="Running", step=f"{STEP_ROLLBACK}-{done + 1}")


def refusal(seen: Observed) -> str | None:
    """Why there is nothing to take back."""
    if not seen.status.promotions:
        return "the result of this run was never promoted: set the annotation on the run whose result was"
    return "it was taken back already" if seen.status.promotions[-1].kind == "RolledBack" else None


def alone(seen: Observed, request: RollbackStatus) -> Observed:
    """The run as if this step were all of it."""
    planned = PlannedStep(str(request.step), optional=True, limit=ATTEMPTS)
    steps = [s for s in seen.status.steps or () if s.name == request.step]
    status = seen.status.model_copy(update={"steps": steps})
    spec = seen.run.spec.model_copy(update={"suspend": False, "active_deadline_seconds": None})
    return replace(seen, run=replace(seen.run, steps=(planned,), spec=spec), status=status)


def noted(seen: Observed, request: RollbackStatus, step: StepStatus | None = None) -> TrainingRunStatus:
    """The status with the request and its step in it, and all else as it stood."""
    status = seen.status.model_copy(update={"rollback": request})
    if step is None:
        return status
    others = [s for s in status.steps or () if s.name != step.name]
    return status.model_copy(update={"steps": [*others, step], "cleaned_up": None})


def ended(seen: Observed, request: RollbackStatus, step: StepStatus) -> TrainingRunStatus:
    """The status when the step has succeeded, or is not tried again."""
    last = last_attempt(step)
    if step.state != "Succeeded":
        message = one_line((last and last.message) or "it failed", limit=limit_of(RollbackStatus, "message"))
        return noted(seen, request.model_copy(update={"state": "Failed", "message": message}), step)
    before = (seen.status.promotions or [])[-PROMOTIONS_KEPT + 1 :]
    entry = PromotionStatus(
        kind="RolledBack",
        version=before[-1].version,
        time=(last.completion_time if last else None) or rfc3339(seen.now),
        exports=before[-1].exports,
        reason=request.token,
    )
    status = noted(seen, request.model_copy(update={"state": "Succeeded"}), step)
    return status.model_copy(update={"promotions": [*before, entry]})
