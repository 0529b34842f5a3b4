"""The rules between the fields of a TrainingRun's spec, beside those that a part of it has by itself.

`SPEC_RULES` has them in the order in which they are told. What a method allows is made of its row in `methods.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from trainyard.api.base import Fetched, Rule
from trainyard.api.run.dataset import INLINE_LIMIT, Dataset
from trainyard.api.run.evaluation import ALIASES, FREE, TINY_METRICS, canonical, is_of_task
from trainyard.api.run.exports import EXPORTS_LIMIT, PUSHED_TO_HUB, TARGETS, in_order
from trainyard.api.run.methods import (
    ANSWERS,
    METHODS,
    SCORING,
    STEADY,
    TINY,
    Lesson,
    acceptable,
    chosen,
    listed,
    none_of,
    one_of,
    sentence,
)
from trainyard.api.run.training import MUON
from trainyard.api.steps import STEP_EVALUATE

# What lets most runs pass comes first, because each mention of a field costs (see `Fetched`); so whether a field is there is
# asked last: in CEL, an error before `||` is nothing if what follows is true.
_SCRIPT = Fetched("script", "has(self.command) && size(self.command) > 0")
_PHASED = Fetched("phased", "has(self.phases)")
_METHOD = Fetched("method", "self.training.method", unless="!has(self.training) || has(self.phases)")


def _sent_by_the_trainer(target: str) -> Rule:
    field = to_camel(target)
    return Rule(
        f"!script || !has(self.{field})",
        f"spec.{field} belongs to the built-in trainer: remove it; the script of spec.command can upload its result itself",
        lambda s: getattr(s, target) is None or not s.command,
        about=_SCRIPT,
    )


def _in_one_training(cel: str, message: str, holds: Callable[[Any], bool]) -> Rule:
    """A rule about a training and its model and data. With phases it is one of each of them (`phase_faults`), not of the whole."""
    return Rule(cel, message, lambda s: s.phases is not None or s.training is None or holds(s), about=_METHOD)


def _formats(lesson: Lesson) -> Rule:
    """The formats of records that methods can learn from."""
    methods, formats = chosen(lambda method: method.learns is lesson), acceptable(lesson)
    return _in_one_training(
        f"!(method in {list(methods)}) || self.datasets.all(d, "
        f"(has(d.convertTo) ? d.convertTo : has(d.generate) ? 'TRM' : d.format) in {formats}) || !has(self.datasets)",
        sentence(methods, lesson.refusal),
        lambda s: (
            s.training.method not in methods
            or s.datasets is None
            or all((d.convert_to or d.record_format) in formats for d in s.datasets)
        ),
    )


def _from_scratch(name: str) -> Rule:
    return _in_one_training(
        f"{none_of([name])} || has(self.model.scratch) || !has(self.model)",
        f"method {name} starts from random weights: give spec.model.scratch, or use method CPT to go on from existing weights",
        lambda s: s.training.method != name or s.model is None or s.model.scratch is not None,
    )


def _from_existing(name: str) -> Rule:
    return _in_one_training(
        f"{none_of([name])} || has(self.model.storageUri) || !has(self.model)",
        f"method {name} goes on from existing weights: give spec.model.storageUri, or use method Pretrain to start from "
        "spec.model.scratch",
        lambda s: s.training.method != name or s.model is None or s.model.storage_uri is not None,
    )


def _are_data_of(method: str, datasets: Sequence[Dataset]) -> bool:
    """Whether a TRM gets either puzzles or records of its own format, and no other model a puzzle."""
    puzzles = [d.puzzle is not None for d in datasets]
    if method not in TINY:
        return not any(puzzles)
    return all(puzzles) or (not any(puzzles) and all(d.record_format == "TRM" for d in datasets))


_ALONE = chosen(lambda method: not method.several_processes)
METHOD_RULES = (
    *map(_from_scratch, chosen(lambda method: method.weights == "scratch")),
    *map(_from_existing, chosen(lambda method: method.weights == "existing")),
    *(_formats(lesson) for lesson in dict.fromkeys(m.learns for m in METHODS.values()) if lesson.refusal),
    _in_one_training(
        f"{none_of(_ALONE)} || (self.numNodes == 1 && self.numProcPerNode == 1)",
        sentence(_ALONE, "{methods} train{s} in one process: remove spec.numNodes and spec.numProcPerNode"),
        lambda s: s.training.method not in _ALONE or s.world_size == 1,
    ),
    _in_one_training(
        f"{none_of(STEADY)} || !has(self.model) || !has(self.model.adapter) || self.model.adapter.lora.dropout == 0.0",
        sentence(
            STEADY,
            "{methods} compare{s} probabilities of the same tokens before and after an update, which dropout would blur: "
            "remove spec.model.adapter.lora.dropout",
        ),
        lambda s: (
            s.training.method not in STEADY
            or s.model is None
            or s.model.adapter is None
            or s.model.adapter.lora.dropout == 0
        ),
    ),
)


ADAPTER_RULES = (
    Rule(
        None,
        "spec.model.adapter.from is of one training, and each phase puts a new adapter on the whole model that it gets: remove it, "
        "or spec.phases",
        lambda s: s.phases is None or s.model is None or s.model.adapter is None or s.model.adapter.from_ is None,
    ),
    Rule(
        None,
        "spec.model.adapter.lora.loraPlusRatio gives AdamW and its like two rates, and optim muon sets its own: remove one of them",
        lambda s: (
            s.training is None
            or s.training.optim != MUON
            or s.model is None
            or s.model.adapter is None
            or s.model.adapter.lora.lora_plus_ratio is None
        ),
    ),
)


SCORE_RULES = (
    Rule(
        None,
        f"method {listed(SCORING)} trains its head as a whole, which quantization NF4 would pack: remove spec.model.adapter.quantization",
        lambda s: (
            s.training is None
            or s.training.method not in SCORING
            or s.model is None
            or s.model.adapter is None
            or s.model.adapter.quantization is None
        ),
    ),
    Rule(
        None,
        f"a reward model is read as a whole one: with method {listed(SCORING)} spec.model.adapter.merge must be true",
        lambda s: (
            s.training is None
            or s.training.method not in SCORING
            or s.model is None
            or s.model.adapter is None
            or s.model.adapter.merge
        ),
    ),
    Rule(
        None,
        f"method {listed(SCORING)} makes a model that writes no text, and no phase can go on from it: let it be the last phase",
        lambda s: (
            not any(
                ((phase.training and phase.training.method) or (s.training and s.training.method)) in SCORING
                for phase in (s.phases or ())[:-1]
            )
        ),
    ),
    Rule(
        None,
        "a reward's model.storageUri run:// is a result on the same checkpoint volume: name the other run's in "
        "spec.storage.checkpoints.claimName",
        lambda s: (
            s.storage.checkpoints.claim_name is not None
            or not any(reward.storage_uri.startswith("run://") for _, reward in s.reward_models())
        ),
    ),
    Rule(
        None,
        "training.teacher.storageUri run:// is a result on the same checkpoint volume: name the other run's in "
        "spec.storage.checkpoints.claimName",
        lambda s: (
            s.storage.checkpoints.claim_name is not None
            or not any((teacher.storage_uri or "").startswith("run://") for _, teacher in s.teachers())
        ),
    ),
)


TRM_RULES = (
    _in_one_training(
        f"({one_of(TINY)}) == has(self.model.trm) || !has(self.model)",
        "method TRM trains spec.model.trm, and nothing else does: set both, or neither",
        lambda s: s.model is None or (s.training.method in TINY) == (s.model.trm is not None),
    ),
    _in_one_training(
        f"({none_of(TINY)} ? self.datasets.all(d, !has(d.puzzle)) : self.datasets.all(d, has(d.puzzle)) || "
        "self.datasets.all(d, !has(d.puzzle) && (d.format == 'TRM' || has(d.generate)))) || !has(self.datasets)",
        "method TRM learns from puzzles or from records of format TRM, one of the two in all datasets; no other method learns "
        "from puzzles",
        lambda s: s.datasets is None or _are_data_of(s.training.method, s.datasets),
    ),
    Rule(
        "has(self.training) || has(self.phases) || !has(self.datasets) || self.datasets.all(d, !has(d.puzzle))",
        "puzzles are for method TRM alone: set spec.training.method to TRM, or remove the dataset with a puzzle",
        lambda s: s.training is not None or s.phases is not None or all(d.puzzle is None for d in s.datasets or ()),
    ),
    Rule(
        None,  # it would mention the method and the callbacks; the operator refuses it in the same words
        "training.callbacks are of the loop of language models, which method TRM has not: remove them",
        lambda s: s.training is None or s.training.method not in TINY or not s.training.callbacks,
    ),
    Rule(
        "!phased || !has(self.model) || !has(self.model.trm)",
        "a Tiny Recursive Model is trained in one go: remove spec.phases",
        lambda s: s.phases is None or s.model is None or s.model.trm is None,
        about=_PHASED,
    ),
    Rule(
        None,  # it would mention four fields, see above; the operator refuses it in the same words
        "method TRM shares its batch out: training.perDeviceTrainBatchSize x gradientAccumulationSteps must be divisible by "
        "numNodes x numProcPerNode",
        lambda s: (
            s.training is None
            or s.training.method not in TINY
            or s.training.per_device_train_batch_size * s.training.gradient_accumulation_steps % s.world_size == 0
        ),
    ),
    Rule(
        "!has(self.evaluation) || (!has(self.evaluation.baselines) && !has(self.evaluation.minimumGain)) || "
        "(has(self.model) && has(self.model.trm))",
        "evaluation.baselines and minimumGain belong to method TRM: remove them",
        lambda s: (
            (s.model is not None and s.model.trm is not None)
            or (s.evaluation.baselines is None and s.evaluation.minimum_gain is None)
        ),
    ),
)


def _depend_on_unknown(spec: Any) -> bool:
    exports = spec.exports or ()
    return not {n for e in exports for n in e.depends_on} <= {e.name for e in exports}


def _acyclic() -> str:
    """CEL: every export is reached from those that wait for none. A list of one gives each round's names a name."""
    waits_for_none = "exports.filter(e, !has(e.dependsOn) || e.dependsOn.size() == 0).map(e, e.name)"
    rounds = "".join(
        ".map(d, exports.filter(e, !has(e.dependsOn) || e.dependsOn.all(n, n in d)).map(e, e.name))"
        for _ in range(EXPORTS_LIMIT - 1)
    )
    unknown = "exports.exists(e, has(e.dependsOn) && e.dependsOn.exists(n, !exports.exists(o, o.name == n)))"
    return f"[{waits_for_none}]{rounds}[0].size() == exports.size() || {unknown}"


_FIELDS = tuple(map(to_camel, TARGETS))
_EXPORTS = Fetched("exports", "self.exports", unless="!has(self.exports)")
_FORMATS = ("gguf", "ollama", "mlx")
"""Targets that load the result as what it is, a whole language model."""


def _formats_only_if(cel: str, message: str, holds: Callable[[Any], bool]) -> Rule:
    asked = " || ".join(f"has(e.{name})" for name in _FORMATS)
    return Rule(
        f"!has(self.model) || {cel} || !exports.exists(e, {asked})",
        message,
        lambda s: s.model is None or holds(s) or all(e.kind not in _FORMATS for e in s.exports or ()),
        about=_EXPORTS,
    )


EXPORT_RULES = (
    Rule(
        None,  # it would mention the method and the exports; the operator refuses it in the same words
        f"exports with {', '.join(_FORMATS)} take a model that writes text, and method {listed(SCORING)} makes one that scores it: "
        "hand it out as it is, by s3 or hub",
        lambda s: (
            s.training is None
            or s.training.method not in SCORING
            or all(e.kind not in _FORMATS for e in s.exports or ())
        ),
        who=lambda s: [e.name for e in s.exports if e.kind in _FORMATS],
    ),
    _formats_only_if(
        "!has(self.model.trm)",
        f"exports with {', '.join(_FORMATS)} take a language model: hand out a Tiny Recursive Model as it is, by s3 or hub",
        lambda s: s.model.trm is None,
    ),
    _formats_only_if(
        "!has(self.model.adapter) || self.model.adapter.merge",
        f"exports with {', '.join(_FORMATS)} take a whole model: set spec.model.adapter.merge to true (the adapter is kept beside it)",
        lambda s: s.model.adapter is None or s.model.adapter.merge,
    ),
    Rule(
        None,
        "two exports have the same name: rename one of them",
        lambda s: len({e.name for e in s.exports or ()}) == len(s.exports or ()),
        who=lambda s: sorted(name for name, n in Counter(e.name for e in s.exports).items() if n > 1),
    ),
    Rule(
        "exports.all(e, !has(e.dependsOn) || e.dependsOn.all(n, exports.exists(o, o.name == n)))",
        "an export's dependsOn names one that does not stand in spec.exports: correct the name, or add that export",
        lambda s: not _depend_on_unknown(s),
        about=_EXPORTS,
    ),
    Rule(
        _acyclic(),
        "exports wait for each other in a circle: take one of the names out of dependsOn",
        lambda s: _depend_on_unknown(s) or len(in_order(s.exports or ())) == len({e.name for e in s.exports or ()}),
        about=_EXPORTS,
    ),
    Rule(
        " && ".join(
            f"exports.all(a, !has(a.{t}) || exports.filter(b, has(b.{t}) && b.{t} == a.{t}).size() == 1)"
            for t in _FIELDS
        ),
        "two exports send the same to the same place: remove one of them, or give it another place",
        lambda s: len({(e.kind, repr(e.target)) for e in s.exports or ()}) == len(s.exports or ()),
        about=_EXPORTS,
    ),
    Rule(
        "exports.all(e, !has(e.when) || e.when != 'GatesPassed') || (has(self.evaluation) && "
        "(has(self.evaluation.gates) || has(self.evaluation.minimumGain)) && self.evaluation.enabled)",
        "an export waits for gates (when: GatesPassed), and the evaluation has none: give spec.evaluation a gate, or remove when",
        lambda s: s.has_gates or all(e.when != "GatesPassed" for e in s.exports or ()),
        about=_EXPORTS,
    ),
    Rule(
        None,
        f"{PUSHED_TO_HUB} is the name of the export that spec.pushToHub stands for: give the export another name",
        lambda s: all(e.name != PUSHED_TO_HUB for e in s.exports or ()),
    ),
    Rule(
        "exports.all(e, !has(e.mlflow) || (has(e.dependsOn) && exports.exists(o, has(o.s3) && o.name in e.dependsOn)))",
        "mlflow keeps the address of files, and no copy: add an export with target s3, and name it in dependsOn",
        lambda s: all(e.mlflow is None or _stored(s, e) for e in s.exports or ()),
        about=_EXPORTS,
    ),
)

_MEASURED_ALIKE = chosen(lambda method: method.learns.examples == "sequences")
_ANSWERING = chosen(lambda method: method.learns is ANSWERS)


def _asks(evaluation: Any) -> bool:
    return any(v is not None for v in (evaluation.metrics, evaluation.gates, evaluation.compare_with))


EVALUATION_RULES = (
    _in_one_training(
        f"method in {[*_MEASURED_ALIKE, *TINY]} || !has(self.evaluation) || (!has(self.evaluation.metrics) && "
        "!has(self.evaluation.gates) && !has(self.evaluation.compareWith))",
        "evaluation.metrics, gates and compareWith judge answers: they are for methods "
        f"{listed([*_MEASURED_ALIKE, *TINY])}; remove them",
        lambda s: s.training.method in (*_MEASURED_ALIKE, *TINY) or not _asks(s.evaluation),
    ),
    _in_one_training(
        f"{none_of(TINY)} || !has(self.evaluation) || (!has(self.evaluation.metrics) && !has(self.evaluation.compareWith) && "
        "!has(self.evaluation.harness) && (!has(self.evaluation.baselineAnswers) || !self.evaluation.baselineAnswers) && "
        f"(!has(self.evaluation.gates) || self.evaluation.gates.all(g, g.metric in {[*TINY_METRICS, *ALIASES]} && "
        "(g.metric != 'tokenAccuracy' || !has(g.minimumGain)))))",
        f"method TRM is judged by gates on {' and '.join(TINY_METRICS)} alone, with minimumGain on exactMatch over evaluation.baselines: "
        "remove evaluation.metrics, compareWith, harness, baselineAnswers and other gates",
        lambda s: (
            s.training.method not in TINY
            or (
                s.evaluation.metrics is None
                and s.evaluation.compare_with is None
                and s.evaluation.harness is None
                and not s.evaluation.baseline_answers
                and all(
                    canonical(g.metric) in TINY_METRICS and (g.metric != "tokenAccuracy" or g.minimum_gain is None)
                    for g in s.evaluation.gates or ()
                )
            )
        ),
    ),
    _in_one_training(
        f"{one_of(_ANSWERING)} || {one_of(TINY)} || !has(self.evaluation) || ((!has(self.evaluation.metrics) || "
        f"self.evaluation.metrics.all(m, m in {list(FREE)})) && (!has(self.evaluation.gates) || "
        f"self.evaluation.gates.all(g, g.metric in {list(FREE)} || g.metric.contains('/'))))",
        sentence(
            _ANSWERING,
            f"only {{methods}} learn{{s}} answers that could be compared: evaluation has {', '.join(FREE)} alone for others",
        ),
        lambda s: (
            s.training.method in (*_ANSWERING, *TINY)
            or all(
                m in FREE or is_of_task(m)
                for m in (*(s.evaluation.metrics or ()), *(g.metric for g in s.evaluation.gates or ()))
            )
        ),
    ),
    Rule(
        "!has(self.evaluation) || !has(self.evaluation.gates) || has(self.evaluation.compareWith) || "
        "self.evaluation.gates.all(g, !has(g.minimumGain)) || (has(self.model) && has(self.model.trm))",
        "evaluation.gates with minimumGain need evaluation.compareWith: say what it is a gain over",
        lambda s: (
            s.evaluation.compare_with is not None
            or all(g.minimum_gain is None for g in s.evaluation.gates or ())
            or (s.model is not None and s.model.trm is not None)
        ),
    ),
    Rule(
        "!has(self.evaluation) || !has(self.evaluation.compareWith) || !has(self.evaluation.compareWith.mlflow) || "
        "(has(self.tracking) && has(self.tracking.mlflow))",
        "evaluation.compareWith.mlflow asks the server of spec.tracking.mlflow: set that too",
        lambda s: (
            s.evaluation.compare_with is None
            or s.evaluation.compare_with.mlflow is None
            or (s.tracking is not None and s.tracking.mlflow is not None)
        ),
    ),
    Rule(
        "!script || !has(self.evaluation) || (!has(self.evaluation.gates) && !has(self.evaluation.harness))",
        "evaluation.gates and harness belong to the built-in trainer: remove them; the script of spec.command can judge its result "
        "itself",
        lambda s: (s.evaluation.gates is None and s.evaluation.harness is None) or not s.command,
        about=_SCRIPT,
    ),
    Rule(
        # Of phases, which share the datasets out, `validate` and the operator know more.
        "!has(self.evaluation) || (!has(self.evaluation.gates) && !has(self.evaluation.harness)) || self.mode != 'Train' || "
        "has(self.phases) || "
        "!has(self.datasets) || self.datasets.exists(d, d.role == self.evaluation.split || (has(d.split) && "
        "(self.evaluation.split == 'Eval' ? d.split.eval : d.split.test) > 0.0) || "
        "(self.evaluation.split == 'Eval' && has(d.puzzle) && d.puzzle.kind == 'Arrays')) || "
        f"({_SCRIPT.cel})",
        "evaluation.gates and harness need held-out records of evaluation.split: set that split on a dataset, or add a dataset with that "
        "role",
        lambda s: (
            (s.evaluation.gates is None and s.evaluation.harness is None)
            or bool(s.command)
            or s.mode != "Train"
            or not s.datasets
            or STEP_EVALUATE in s.steps()
        ),
    ),
)


def _stored(spec: Any, export: Any) -> bool:
    return any(other.s3 is not None and other.name in export.depends_on for other in spec.exports)


def _has_callbacks(spec: Any) -> bool:
    return spec.training is not None and bool(spec.training.callbacks)


SPEC_RULES: tuple[Rule, ...] = (
    Rule(
        "(has(self.model) && has(self.datasets) && (has(self.training) || has(self.phases))) || "
        f"({_SCRIPT.cel}) || self.mode == 'Dataset'",
        "the built-in trainer needs spec.model, spec.datasets and spec.training; to run a script of your own instead, set "
        "spec.command",
        lambda s: (
            bool(s.command)
            or s.mode == "Dataset"
            or (s.model is not None and bool(s.datasets) and bool(s.training or s.phases))
        ),
    ),
    Rule(
        "self.mode != 'Dataset' || has(self.datasets)",
        "mode Dataset builds spec.datasets: give at least one",
        lambda s: s.mode != "Dataset" or bool(s.datasets),
    ),
    Rule(
        "!has(self.datasetUpload) || has(self.datasets)",
        "spec.datasetUpload needs something to upload: give spec.datasets, or remove it",
        lambda s: s.dataset_upload is None or bool(s.datasets),
    ),
    Rule(
        "script || !has(self.args) || size(self.args) == 0",
        "spec.args are the arguments of spec.command: set spec.command too, or remove spec.args",
        lambda s: bool(s.command) or not s.args,
        about=_SCRIPT,
    ),
    Rule(
        "script || !has(self.storage) || !has(self.storage.workspace) || has(self.phases) || (has(self.training) && "
        "has(self.training.callbacks))",
        "spec.storage.workspace is where the script of spec.command works, and where training.callbacks come from: set one of them "
        "too, or remove the workspace",
        lambda s: bool(s.command) or s.storage.workspace is None or s.phases is not None or _has_callbacks(s),
        about=_SCRIPT,
    ),
    Rule(
        "!script || self.mode == 'Train'",
        "modes DryRun, Debug and Dataset belong to the built-in trainer: with spec.command set, mode must be Train",
        lambda s: not s.command or s.mode == "Train",
        about=_SCRIPT,
    ),
    Rule(
        "!script || (has(self.image) && self.image != '')",
        "spec.command runs in an image of your own: set spec.image",
        lambda s: not s.command or s.image != "",
        about=_SCRIPT,
    ),
    Rule(
        "self.datasets.exists(d, d.role == 'Train') || !has(self.datasets)",
        "spec.datasets has nothing to train on: at least one dataset needs role Train",
        lambda s: s.datasets is None or any(d.role == "Train" for d in s.datasets),
    ),
    Rule(
        "self.datasets.map(d, has(d.inline) && has(d.inline.text) ? size(bytes(d.inline.text)) : 0).sum() "
        f"<= {INLINE_LIMIT} || !has(self.datasets)",
        f"inline data of all datasets together has more than {INLINE_LIMIT} bytes: put larger data on a volume, into a "
        "bucket or on a web server, and give its storageUri",
        # Records are opaque to the API server; the operator and `validate` count them too.
        lambda s: sum(d.inline.size for d in s.datasets or () if d.inline is not None) <= INLINE_LIMIT,
    ),
    Rule(
        None,
        "two datasets have the same name: rename one of them",
        lambda s: len({d.name for d in s.datasets or ()}) == len(s.datasets or ()),
    ),
    *METHOD_RULES,
    *ADAPTER_RULES,
    *SCORE_RULES,
    *TRM_RULES,
    *EVALUATION_RULES,
    Rule(
        "self.numNodes == 1 || (has(self.storage) && has(self.storage.checkpoints) && ("
        "(has(self.storage.checkpoints.accessModes) && 'ReadWriteMany' in self.storage.checkpoints.accessModes) || "
        "(has(self.storage.checkpoints.claimName) && !has(self.storage.checkpoints.size)))) || "
        "(has(self.placement) && has(self.placement.nodeNames) && size(self.placement.nodeNames) == 1)",
        "with numNodes above 1, pods on several nodes write to the checkpoint volume: set "
        "spec.storage.checkpoints.accessModes to [ReadWriteMany], or keep all pods on one node with a single name in "
        "spec.placement.nodeNames",
        lambda s: (
            s.num_nodes == 1
            or "ReadWriteMany" in s.storage.checkpoints.access_modes
            or (s.storage.checkpoints.claim_name is not None and s.storage.checkpoints.size is None)
            or len(s.placement.node_names) == 1
        ),
    ),
    Rule(
        None,  # it would mention four fields; the operator refuses it in the same words
        "spec.model.storageUri run:// is a result on the same checkpoint volume: name the other run's in "
        "spec.storage.checkpoints.claimName",
        lambda s: (
            s.model is None
            or not (s.model.storage_uri or "").startswith("run://")
            or s.storage.checkpoints.claim_name is not None
        ),
    ),
    Rule(
        "!script || !has(self.phases)",
        "spec.phases belong to the built-in trainer: remove spec.command, or the phases",
        lambda s: s.phases is None or not s.command,
        about=_SCRIPT,
    ),
    Rule(
        "!script || !has(self.tracking)",
        "spec.tracking belongs to the built-in trainer: remove it; the script of spec.command can talk to MLflow itself",
        lambda s: s.tracking is None or not s.command,
        about=_SCRIPT,
    ),
    *map(_sent_by_the_trainer, ("exports", "push_to_hub")),
    *EXPORT_RULES,
    Rule(
        None,
        "two phases have the same name: rename one of them",
        lambda s: len({p.name for p in s.phases or ()}) == len(s.phases or ()),
    ),
    Rule(
        "!phased || self.phases.all(p, !has(p.datasets) || p.datasets.all(n, has(self.datasets) && "
        "self.datasets.exists(d, d.name == n)))",
        "spec.phases names a dataset that does not stand in spec.datasets: correct the name, or add the dataset",
        lambda s: all(n in {d.name for d in s.datasets or ()} for p in s.phases or () for n in p.datasets or ()),
        about=_PHASED,
    ),
    Rule(
        "!has(self.runPhases) || self.runPhases.all(n, has(self.phases) && self.phases.exists(p, p.name == n))",
        "spec.runPhases names a phase that does not stand in spec.phases: correct the name, or remove it",
        lambda s: all(n in {p.name for p in s.phases or ()} for n in s.run_phases),
    ),
    Rule(
        "!phased || !has(self.model) || !has(self.model.adapter) || self.model.adapter.merge",
        "a phase goes on from a whole model: with spec.phases, spec.model.adapter.merge must be true",
        lambda s: s.phases is None or s.model is None or s.model.adapter is None or s.model.adapter.merge,
        about=_PHASED,
    ),
)
