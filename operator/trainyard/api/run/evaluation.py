"""`spec.evaluation`: what is measured after training, and how good the result has to be.

A gate says of one metric what is asked of it; what is compared with (the champion) is named once for all gates. Which metrics
there are stands here, for the fields, for the rules and for the trainer, which measures them.
"""

import difflib
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.addresses import ModelUri
from trainyard.api.base import ApiModel, DnsLabel, Rule, SecretRef, exactly_one
from trainyard.api.run.harness import HARNESS_METRICS, OF_WHOLE_TASKS, Harness

FREE = ("loss", "perplexity", "tokenAccuracy")
"""Found by one pass over the records."""
ANSWERED = ("exactMatch", "commandAccuracy", "latencyP50Seconds")
"""Found by having the model answer."""
METRICS = (*FREE, *ANSWERED)
ALIASES = {"accuracy": "exactMatch"}
LOWER_IS_BETTER = frozenset(
    {"loss", "perplexity", "latencyP50Seconds", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"}
)
"""By `own_name`."""
TINY_METRICS = ("exactMatch", "tokenAccuracy")
"""Those that a Tiny Recursive Model has."""
NAMES = f"^({'|'.join((*METRICS, *ALIASES))})$"
OF_TASKS = rf"[A-Za-z0-9][A-Za-z0-9_.-]*/({'|'.join(HARNESS_METRICS)})([.][A-Za-z0-9_-]+)?"
"""Those of evaluation.harness: task/metric, and with a filter task/metric.filter."""
GATED = f"^({'|'.join((*METRICS, *ALIASES))}|{OF_TASKS})$"
_SAID = [*ANSWERED, *ALIASES]


def _known(name: str) -> str:
    if re.fullmatch(NAMES, name):
        return name
    known = [*METRICS, *ALIASES]
    by_form = {re.sub(r"[^a-z0-9]", "", each.lower()): each for each in known}
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), by_form, n=1, cutoff=0.5)
    advice = f"did you mean {by_form[close[0]]}?" if close else f"known are {', '.join(known)}"
    raise PydanticCustomError("metric", "No such metric; {advice}", {"advice": advice})


def _known_or_of_a_task(name: str) -> str:
    if "/" not in name:
        return _known(name)
    if re.fullmatch(GATED, name):
        return name
    advice = f"of a task of evaluation.harness it is task/metric with one of {', '.join(HARNESS_METRICS)}"
    raise PydanticCustomError("metric", "No such metric; {advice}", {"advice": advice})


MetricName = Annotated[str, Field(max_length=63, json_schema_extra={"pattern": NAMES}), AfterValidator(_known)]


GatedMetric = Annotated[
    str, Field(max_length=127, json_schema_extra={"pattern": GATED}), AfterValidator(_known_or_of_a_task)
]


def is_of_task(metric: str) -> bool:
    """Whether it is measured by evaluation.harness."""
    return "/" in metric


def own_name(metric: str) -> str:
    """What is measured, whichever task and filter it is of: acc of pods/acc.strict."""
    return metric.rpartition("/")[2].partition(".")[0]


def canonical(metric: str) -> str:
    """A metric's own name."""
    return ALIASES.get(metric, metric)


class Gate(ApiModel):
    """What is asked of one metric."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.minimum) || has(self.maximum) || has(self.minimumGain)",
            "a gate asks for something: give minimum, maximum or minimumGain",
            lambda g: g.minimum is not None or g.maximum is not None or g.minimum_gain is not None,
        ),
        Rule(
            "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            "a gate's minimum is above its maximum: nothing can pass it",
            lambda g: g.minimum is None or g.maximum is None or g.minimum <= g.maximum,
        ),
        Rule(
            f"self.confidence == 0.0 || !self.metric.matches('/({'|'.join(OF_WHOLE_TASKS)})([.]|$)')",
            f"{', '.join(OF_WHOLE_TASKS)} are of a task as a whole, so nothing tells how sure they are: give the gate confidence: 0",
            lambda g: g.confidence == 0 or not is_of_task(g.metric) or own_name(g.metric) not in OF_WHOLE_TASKS,
        ),
    )

    metric: GatedMetric = Field(
        description=f"{', '.join(METRICS)} (accuracy means exactMatch), or task/metric of evaluation.harness. Of method TRM: "
        "exactMatch and tokenAccuracy."
    )
    minimum: float | None = Field(None, ge=-1e9, le=1e9, description="The metric is at least this.")
    maximum: float | None = Field(None, ge=-1e9, le=1e9, description="The metric is at most this.")
    minimum_gain: float | None = Field(
        None,
        ge=-1e9,
        le=1e9,
        description="It is better by more than this than that of compareWith, on the same records; below 0: worse by less than "
        "that. Of loss, perplexity and latency, lower is better. With method TRM, compared with the better one of Majority and "
        "NearestNeighbor.",
    )
    confidence: float = Field(
        0.95,
        ge=0,
        le=0.999,
        description="How sure it has to be; what is surely neither enough nor too little is Inconclusive. 0: the measured value "
        "decides, however few the records.",
    )


class BaseModelRef(ApiModel):
    """The model as it was before training."""


class RegisteredModel(ApiModel):
    """The version of a registered model that an alias of spec.tracking.mlflow's server points to."""

    model: str = Field(min_length=1, max_length=250, description="Name of the registered model.")
    alias: str = Field(
        "champion", max_length=250, pattern=r"^[\w.-]+$", description="Which of its versions: that with this alias."
    )
    no_champion: Literal["Promote", "Reject"] = Field(
        "Promote",
        description="The verdict of gates with minimumGain while no version has the alias.",
    )


class CompareWith(ApiModel):
    """The champion: what the result has to be better than, measured on the same records in the same step."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "base_model",
            "storage_uri",
            "run",
            "mlflow",
            message="evaluation.compareWith needs exactly one of baseModel, storageUri, run and mlflow",
        ),
        Rule(
            "!has(self.secretRef) || has(self.storageUri) || has(self.mlflow)",
            "evaluation.compareWith.secretRef is for storageUri or mlflow: remove it",
            lambda c: c.secret_ref is None or c.storage_uri is not None or c.mlflow is not None,
        ),
    )

    base_model: BaseModelRef | None = Field(None, description="The model as it was before training.")
    storage_uri: ModelUri | None = Field(None, description="A model from anywhere, as spec.model.storageUri.")
    run: DnsLabel | None = Field(None, description="The result of another run, by its name.")
    mlflow: RegisteredModel | None = Field(None, description="A registered model, by its alias.")
    secret_ref: SecretRef | None = Field(
        None, description="Secret that the weights are read with, as spec.model.secretRef."
    )


Baseline = Literal["Majority", "NearestNeighbor", "NoRecursion", "ShuffledLabels"]


def _without_doubles(evaluation: Any) -> bool:
    names = [canonical(gate.metric) for gate in evaluation.gates or ()]
    return len(set(names)) == len(names)


def _measured(evaluation: Any) -> bool:
    """Whether each gate's metric is among those that are measured, where these are named."""
    if evaluation.metrics is None:
        return True
    known = {canonical(name) for name in evaluation.metrics}
    return all(canonical(g.metric) in known or is_of_task(g.metric) for g in evaluation.gates or ())


def _asked(evaluation: Any) -> bool:
    """Whether the task of each gate's metric is asked."""
    tasks = evaluation.harness.tasks if evaluation.harness else ()
    return all(not is_of_task(g.metric) or g.metric.partition("/")[0] in tasks for g in evaluation.gates or ())


class Evaluation(ApiModel):
    """What happens after training with the held-out records."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            None,
            "two gates are about the same metric (accuracy is exactMatch): make one of them, with minimum and minimumGain",
            _without_doubles,
        ),
        Rule(
            "!has(self.gates) || self.enabled",
            "evaluation.gates judge what is measured: remove enabled: false, or the gates",
            lambda e: e.gates is None or e.enabled,
        ),
        Rule(
            "!has(self.gates) || !has(self.metrics) || self.gates.all(g, g.metric in self.metrics || g.metric.contains('/') || "
            "(g.metric == 'accuracy' && 'exactMatch' in self.metrics) || "
            "(g.metric == 'exactMatch' && 'accuracy' in self.metrics))",
            "evaluation.gates has a metric that is not measured: add it to evaluation.metrics, or remove metrics to have all "
            "that gates name",
            _measured,
        ),
        Rule(
            "!has(self.gates) || self.gates.all(g, !g.metric.contains('/') || "
            "(has(self.harness) && self.harness.tasks.exists(t, g.metric.startsWith(t + '/'))))",
            "evaluation.gates has a metric task/metric whose task is not asked: add the task to evaluation.harness.tasks",
            _asked,
        ),
        Rule(
            "!has(self.baselineAnswers) || !self.baselineAnswers || (self.baseline && ("
            f"(has(self.metrics) && self.metrics.exists(m, m in {_SAID})) || "
            f"has(self.harness) || (has(self.gates) && self.gates.exists(g, g.metric in {_SAID}))))",
            "evaluation.baselineAnswers is about answers of the model before training: name exactMatch or commandAccuracy in metrics "
            "or gates, or tasks in harness, and leave baseline on",
            lambda e: (
                not e.baseline_answers
                or (
                    e.baseline
                    and (
                        e.harness is not None
                        or any(m in _SAID for m in (*(e.metrics or ()), *(g.metric for g in e.gates or ())))
                    )
                )
            ),
        ),
        Rule(
            "!has(self.harness) || self.enabled",
            "evaluation.harness is asked in the evaluation: remove enabled: false, or the harness",
            lambda e: e.harness is None or e.enabled,
        ),
        Rule(
            "!has(self.compareWith) || (has(self.gates) && self.gates.exists(g, has(g.minimumGain)))",
            "evaluation.compareWith is what a gain is over: give a gate minimumGain, or remove compareWith",
            lambda e: e.compare_with is None or any(g.minimum_gain is not None for g in e.gates or ()),
        ),
    )

    enabled: bool = Field(
        True,
        description="Measure at the end, where held-out data exists: loss, perplexity and the other metrics; DPO, ORPO and "
        "RewardModel: loss, margin and accuracy; KTO: loss and margin; PPO, GRPO and RLOO: reward and divergence from the start.",
    )
    split: Literal["Eval", "Test"] = Field("Eval", description="Which held-out split is measured.")
    metrics: list[MetricName] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="What is measured of a model that learns from texts and answers. loss, perplexity, tokenAccuracy: of the "
        "tokens that count. exactMatch (or accuracy): the likeliest answer is the reference, but for white space. "
        "commandAccuracy: the tool call, or the first shell command, is the same. latencyP50Seconds: half of the answers take "
        "at most so long, asked one by one. Default: loss, perplexity, tokenAccuracy and what gates name.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    max_new_tokens: int = Field(
        128, ge=1, le=4096, description="Where the model is to answer: of at most so many tokens."
    )
    max_answers: int = Field(
        200,
        ge=1,
        le=100_000,
        description="How many held-out records are answered at most, evenly spread. Loss and the like are of all of them.",
    )
    gates: list[Gate] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="How good the result has to be. The run succeeds in any case; the condition GatesPassed and "
        "status.evaluation.gates tell the verdict.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["metric"]},
    )
    compare_with: CompareWith | None = Field(None, description="What minimumGain of the gates is a gain over.")
    samples: int = Field(
        3,
        ge=0,
        le=32,
        description="How many beginnings of held-out records the model continues at each evaluation (also those of "
        "training.evalSteps), for people to read.",
    )
    harness: Harness | None = Field(
        None,
        description="Tasks of lm-evaluation-harness that the result is asked beside, without the internet. Their metrics are told as "
        "task/metric.",
    )
    baseline: bool = Field(
        True, description="Also measure the model as it was before training, on the same records, to compare with."
    )
    baseline_answers: bool = Field(
        False,
        description="The model before training answers too, so that its exactMatch and commandAccuracy, and what the tasks of harness "
        "measure, are told beside those of the result. It takes as long again.",
    )
    baselines: list[Baseline] | None = Field(
        None,
        max_length=4,
        description="For method TRM: what the model is compared with. Majority and NearestNeighbor cost nothing and are the "
        "default; NoRecursion and ShuffledLabels each train a network of the same size and as many steps.",
    )
    minimum_gain: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Goes away in the next version. For method TRM, short for a gate on exactMatch with this minimumGain and "
        "confidence 0.",
    )

    def all_gates(self) -> list[Gate]:
        """Those written out, and the one that minimumGain stands for."""
        short = self.minimum_gain
        if short is None or any(canonical(gate.metric) == "exactMatch" for gate in self.gates or ()):
            return list(self.gates or ())
        return [*(self.gates or ()), Gate(metric="exactMatch", minimum_gain=short, confidence=0.0)]

    def measured(self) -> tuple[str, ...]:
        """The metrics that records are scored by, in the order of METRICS."""
        named = self.metrics or (*FREE, *(g.metric for g in self.all_gates()))
        wanted = {canonical(name) for name in named}
        return tuple(name for name in METRICS if name in wanted)
