"""What a run costs: hours of GPUs, and money, reckoned anew from its attempts at each look. Pure.

An attempt holds its GPUs from the start of its pod to its end; one that waits for them holds none. Attempts that the status
no longer has are a sum at their step, so nothing has to be remembered between two looks: a restarted operator reckons the
same, and a wrong clock spoils no more than the numbers of the looks at which it was wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from trainyard.api.gpus import PRODUCT_LABEL, gpus_in
from trainyard.api.run.status import Attempt, CostStatus, StepStatus, TrainingRunStatus
from trainyard.api.run.trainingrun import TrainingRunSpec, phases_to_run
from trainyard.api.steps import is_train, train_step
from trainyard.controller.runs.views import parse_time

ANY_PRODUCT = "*"
HOUR = Decimal(3600)
_DECIMALS = Decimal("0.0001")


@dataclass(frozen=True)
class Prices:
    """What the installation says of prices."""

    by_product: Mapping[str, float] = field(default_factory=dict)
    """Of a GPU hour, by the node label of its product; `*` is any other."""
    currency: str = ""

    def rate(self, spec: TrainingRunSpec) -> Decimal | None:
        """Of a GPU hour of this run; None where nobody has said it."""
        own = spec.cost.hourly_rate if spec.cost is not None else None
        product = spec.placement.node_selector.get(PRODUCT_LABEL, ANY_PRODUCT)
        price = self.by_product.get(product, self.by_product.get(ANY_PRODUCT)) if own is None else own
        return None if price is None else Decimal(repr(price))

    def currency_of(self, spec: TrainingRunSpec) -> str:
        """What its price is in; empty where nobody has said it."""
        return (spec.cost.currency if spec.cost is not None else "") or self.currency


NO_PRICES = Prices()


def seconds(attempt: Attempt, *, until: datetime | None = None, since: datetime | None = None) -> int:
    """From the start of its pod to its end; of one that runs, up to `until`. 0 of one that got no node.

    With `since`, those before are left out.
    """
    began = parse_time(attempt.pod_start_time or attempt.start_time)
    ended = parse_time(attempt.completion_time) or until
    if not (attempt.node and began and ended):
        return 0
    if since is not None:
        began = max(began, since)
    return max(0, int((ended - began).total_seconds()))


def gpu_seconds(attempt: Attempt, *, until: datetime | None = None, since: datetime | None = None) -> int:
    """The same, times the GPUs that it held."""
    return seconds(attempt, until=until, since=since) * (attempt.gpus or 0)


def worked(step: StepStatus, *, until: datetime) -> int:
    """Seconds for which pods of a step ran, over all attempts."""
    return (step.earlier_seconds or 0) + sum(seconds(attempt, until=until) for attempt in step.attempts or ())


def spent(steps: Iterable[StepStatus], *, until: datetime, since: datetime | None = None) -> int:
    """GPU seconds of all attempts. What the status has only as a sum is of the time of the oldest attempt that it has."""
    total = 0
    for step in steps:
        attempts = step.attempts or []
        oldest = parse_time(attempts[0].start_time) if attempts else None
        if since is None or (oldest is not None and oldest >= since):
            total += step.earlier_gpu_seconds or 0
        total += sum(gpu_seconds(attempt, until=until, since=since) for attempt in attempts)
    return total


def held(steps: Iterable[StepStatus]) -> int:
    """GPUs that are held at the moment."""
    return sum(
        attempt.gpus or 0
        for step in steps
        for attempt in step.attempts or ()
        if attempt.node and not attempt.completion_time
    )


def gpus_of_training(spec: TrainingRunSpec) -> int:
    """GPUs that all pods of the training step ask for together."""
    return spec.num_nodes * gpus_in({**spec.resources.requests, **spec.resources.limits})


def money(seconds: float, rate: Decimal) -> Decimal:
    """What so many GPU seconds cost."""
    return Decimal(seconds) / HOUR * rate


def estimated_seconds(spec: TrainingRunSpec, status: TrainingRunStatus, *, until: datetime) -> int | None:
    """GPU seconds of the run in the end, by what its training has told; before that at most, by activeDeadlineSeconds."""
    gpus, so_far = gpus_of_training(spec), spent(status.steps or (), until=until)
    trainings = [step for step in status.steps or () if is_train(step.name)]
    if trainings and all(step.state == "Succeeded" for step in trainings):
        return so_far
    left = _seconds_left(spec, status, until=until)
    if left is not None:
        return so_far + gpus * left
    return None if spec.active_deadline_seconds is None else max(so_far, gpus * spec.active_deadline_seconds)


def _seconds_left(spec: TrainingRunSpec, status: TrainingRunStatus, *, until: datetime) -> int | None:
    """Of all trainings: what the present one tells, and what the spec expects of others; None where nobody knows."""
    current = status.current_step or ""
    told = status.trainer_status.estimated_remaining_seconds if status.trainer_status and is_train(current) else None
    wanted = phases_to_run(spec)
    if not wanted:
        return told
    steps = {step.name: step for step in status.steps or ()}
    total = 0
    for phase in (phase for phase in spec.phases or () if phase.name in wanted):
        name = train_step(phase.name)
        step = steps.get(name)
        if step is not None and step.state == "Succeeded":
            continue
        if name == current and told is not None:
            total += told
        elif phase.expected_duration_seconds is not None:
            total += max(0, phase.expected_duration_seconds - (worked(step, until=until) if step else 0))
        else:
            return None
    return total


def reckoned(
    spec: TrainingRunSpec, status: TrainingRunStatus, *, prices: Prices, now: datetime, over: bool = False
) -> CostStatus | None:
    """`status.cost`. `over`: the run has ended."""
    seconds = spent(status.steps or (), until=now)
    if spec.cost is None and not seconds and not gpus_of_training(spec):
        return None
    rate = prices.rate(spec)
    if rate is None:
        return CostStatus(gpu_hours=written(Decimal(seconds) / HOUR))
    regular = spec.cost.regular_hourly_rate if spec.cost is not None else None
    saved = None if regular is None else money(seconds, Decimal(repr(regular)) - rate)
    estimate = None if over else estimated_seconds(spec, status, until=now)
    return CostStatus(
        gpu_hours=written(Decimal(seconds) / HOUR),
        hourly_rate=written(rate),
        currency=prices.currency_of(spec) or None,
        actual=written(money(seconds, rate)),
        saved=None if saved is None else written(saved),
        estimated=None if estimate is None else written(money(estimate, rate)),
    )


def written(number: Decimal) -> str:
    """At most four decimals, without zeros at the end: `0.35`, `12`."""
    text = f"{number.quantize(_DECIMALS):f}"
    return text.rstrip("0").rstrip(".")
