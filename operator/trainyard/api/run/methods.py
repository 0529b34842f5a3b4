"""The methods of training: one row each, and what follows from it.

What a method learns from, where its weights come from and what it cannot be combined with is looked up here: by the rules of
the API, whose CEL and Python are made of these rows, by the prepare step and by the training. What only code can say, its
data sets, its loss and its metrics, stands in the trainer's `methods/recipes.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from trainyard.api.run.selection import RecordFormat

PLAIN: dict[RecordFormat, RecordFormat] = {
    "TRM": "PromptCompletion",
    "TrainingExample": "PromptCompletion",
    "TunixSFT": "Messages",
}
"""What a format becomes by itself for a method that learns from prompts and messages."""


@dataclass(frozen=True)
class Lesson:
    """What a method learns from."""

    formats: tuple[RecordFormat, ...]
    """Formats that records are trained in."""
    examples: Literal["sequences", "pairs", "answers", "prompts", "puzzles"]
    """What the records become."""
    refusal: str = ""
    """What is said of other formats, see `sentence`; empty where a rule of its own judges the data."""


TEXT = Lesson(
    ("Text",),
    "sequences",
    "{methods} learn{s} from plain text: every dataset needs format Text or convertTo: Text; use method SFT for prompts and "
    "messages",
)
ANSWERS = Lesson(
    ("Text", "PromptCompletion", "Messages"),
    "sequences",
    "{methods} learn{s} from answers: no dataset can have format Preference, UnpairedPreference or Prompt; use method DPO, ORPO "
    "or KTO for preferences, PPO for Prompt, or convert them (convertTo)",
)
PAIRS = Lesson(
    ("Preference",),
    "pairs",
    "{methods} learn{s} from pairs: every dataset needs format Preference (prompt, chosen, rejected); use method SFT for "
    "answers that stand alone, KTO for answers with a label",
)
JUDGED = Lesson(
    ("UnpairedPreference", "Preference"),
    "answers",
    "{methods} learn{s} from answers that were judged: every dataset needs format UnpairedPreference (prompt, completion, label) "
    "or Preference, whose answers count as a good and a bad one; use method SFT for answers without a label",
)
PROMPTS = Lesson(
    ("Prompt",),
    "prompts",
    "{methods} write{s} {its} own answers: every dataset needs format Prompt (prompt, optionally answer) or convertTo: Prompt; "
    "use method SFT for prompts with completions",
)
PUZZLES = Lesson(("TRM",), "puzzles")


@dataclass(frozen=True)
class Method:
    """What holds for every training with this method."""

    told: str
    """What it does, in the field's description."""
    learns: Lesson
    weights: Literal["scratch", "existing", "either", "trm"] = "either"
    """Which of spec.model's ways to come by weights it takes: scratch, storageUri, either of the two, or trm."""
    learning_rate: float | None = None
    """Peak where the run gives none; None where its own loop decides."""
    configuration: str | None = "SFTConfig"
    """Class whose arguments extraArgs may name; None where there are none to name."""
    several_processes: bool = True
    allows_dropout: bool = True
    """Whether an adapter may drop out."""
    has_reference: bool = False
    """Whether answers are judged relative to the model as it was at the start."""
    has_own_evaluation: bool = False
    """Whether metrics of its own, and not the loss of each token, measure what is held out."""
    group: int | None = None
    """Answers to one prompt that are compared with each other, where extraArgs.num_generations says nothing else."""
    stops_by: tuple[str, ...] = ("loss",)
    """Metrics of held-out data that may end it early; the first is the default."""
    makes_scores: bool = False
    """Whether the result gives one number for a text, and writes none."""
    has_evaluation_loss: bool = True
    """Whether an evaluation gives a loss, by which the best checkpoint can be told."""

    is_taught: bool = False
    """Whether it has a teacher."""

    @property
    def packs(self) -> bool:
        """Whether several of its examples may share a sequence."""
        return self.learns.examples == "sequences"


METHODS = {
    "Pretrain": Method("next-token prediction from random weights.", TEXT, weights="scratch", learning_rate=5e-4),
    "CPT": Method("the same, going on from existing weights.", TEXT, weights="existing", learning_rate=2e-5),
    "SFT": Method(
        "learn to answer; loss on the completion or on the assistant's turns alone.", ANSWERS, learning_rate=2e-5
    ),
    "Distillation": Method(
        "learn a teacher's probabilities of each token of an answer, instead of the token alone.",
        ANSWERS,
        learning_rate=2e-5,
        configuration="DistillationConfig",
        several_processes=False,
        is_taught=True,
    ),
    "DPO": Method(
        "prefer the chosen of two answers to the rejected one, relative to the model as it was.",
        PAIRS,
        learning_rate=1e-6,
        configuration="DPOConfig",
        several_processes=False,
        has_reference=True,
        has_own_evaluation=True,
        stops_by=("loss", "rewards/margins", "rewards/accuracies"),
    ),
    "ORPO": Method(
        "the same without such a reference.",
        PAIRS,
        learning_rate=8e-6,
        configuration="ORPOConfig",
        several_processes=False,
        has_own_evaluation=True,
        stops_by=("loss", "rewards/margins", "rewards/accuracies"),
    ),
    "RewardModel": Method(
        "score the chosen of two answers higher: a sequence-classification model with one output, for PPO's rewards.",
        PAIRS,
        weights="existing",
        learning_rate=1e-4,
        configuration="RewardConfig",
        several_processes=False,
        has_own_evaluation=True,
        makes_scores=True,
        stops_by=("loss", "rewards/margins", "rewards/accuracies"),
    ),
    "KTO": Method(
        "make answers that were found good likelier and bad ones less likely, relative to the model as it was; no pairs needed.",
        JUDGED,
        learning_rate=1e-6,
        configuration="KTOConfig",
        several_processes=False,
        has_reference=True,
        has_own_evaluation=True,
        stops_by=("loss", "rewards/margins"),
    ),
    "PPO": Method(
        "generate answers and learn from their rewards.",
        PROMPTS,
        learning_rate=3e-6,
        configuration="PPOConfig",
        several_processes=False,
        allows_dropout=False,
        has_own_evaluation=True,
        has_evaluation_loss=False,
        stops_by=("objective/scores",),
    ),
    "GRPO": Method(
        "generate several answers to each prompt, and make those likelier that are rewarded more than the others.",
        PROMPTS,
        learning_rate=1e-6,
        configuration="GRPOConfig",
        several_processes=False,
        allows_dropout=False,
        has_own_evaluation=True,
        has_evaluation_loss=False,
        group=8,
        stops_by=("objective/scores",),
    ),
    "RLOO": Method(
        "the same with whole answers, each measured by the mean of the others.",
        PROMPTS,
        learning_rate=1e-6,
        configuration="RLOOConfig",
        several_processes=False,
        allows_dropout=False,
        has_own_evaluation=True,
        has_evaluation_loss=False,
        group=2,
        stops_by=("objective/scores",),
    ),
    "TRM": Method(
        "a Tiny Recursive Model learns to solve puzzles or to map texts to closed answers.",
        PUZZLES,
        weights="trm",
        configuration=None,
        has_own_evaluation=True,
        stops_by=("exactMatch",),
    ),
}
FALLING = frozenset({"loss"})
"""Of the metrics that may end a training, those that are better when they are lower."""
NAMES = tuple(METHODS)
STOPPERS = tuple(dict.fromkeys(metric for method in METHODS.values() for metric in method.stops_by))
MethodName = Literal[NAMES]  # type: ignore[valid-type]


def chosen(fits: Callable[[Method], bool]) -> tuple[str, ...]:
    """Names of the methods of whose row this is true."""
    return tuple(name for name, method in METHODS.items() if fits(method))


TINY = chosen(lambda method: method.weights == "trm")
GROUPING = chosen(lambda method: method.group is not None)
STEADY = chosen(lambda method: not method.allows_dropout)
SCORING = chosen(lambda method: method.makes_scores)
REWARDED = chosen(lambda method: method.learns is PROMPTS)
TAUGHT = chosen(lambda method: method.is_taught)


def acceptable(lesson: Lesson) -> list[str]:
    """Formats that a dataset may be of: those that are trained in, and those that become one of them by themselves."""
    return [one for one in get_args(RecordFormat) if one in lesson.formats or PLAIN.get(one) in lesson.formats]


def default_rates() -> str:
    """`5e-4 for Pretrain, 2e-5 for CPT and SFT, ...`: the highest first."""
    users: dict[float, list[str]] = {}
    for name, method in METHODS.items():
        if method.learning_rate is not None:
            users.setdefault(method.learning_rate, []).append(name)
    ordered = sorted(users.items(), reverse=True)
    return ", ".join(f"{rate:.0e} for {listed(names)}".replace("e-0", "e-") for rate, names in ordered)


def one_of(names: Sequence[str], method: str = "method") -> str:
    """CEL: the method is one of these."""
    return f"{method} == '{names[0]}'" if len(names) == 1 else f"{method} in {list(names)}"


def none_of(names: Sequence[str]) -> str:
    """CEL: the method is none of these."""
    return f"method != '{names[0]}'" if len(names) == 1 else f"!(method in {list(names)})"


def sentence(names: Sequence[str], text: str) -> str:
    """`{methods} need{s} {its} data` as `method PPO needs its data`, or `methods DPO and ORPO need their data`."""
    if len(names) == 1:
        return text.format(methods=f"method {names[0]}", s="s", its="its")
    return text.format(methods=f"methods {listed(names)}", s="", its="their")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
