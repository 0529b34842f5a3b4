"""Rules between fields of one object: each accepted once and refused once, with exactly our words, by both sides."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.api import formats, sinks
from tests.api.conftest import Objects
from tests.api.fields import RUN, SCHEDULE, SWEEP, Kind
from tests.api.manifests import (
    BY_ALIAS,
    CHAMPION,
    FINE_TUNING,
    GAIN,
    HELD_OUT,
    JUDGED,
    PHASED,
    REWARDED,
    SCRATCH,
    SCRATCH_WITH_TOKENIZER,
    SCRIPT,
    TAUGHT,
    TEMPLATE,
    TEXT,
    TRM,
    TRM_TEXT,
    WHOLE_NUMBERS,
    run,
    schedule,
    sweep,
)
from tests.api.manifests import SWEEP as COMPLETE_SWEEP
from tests.api.places import Place, at, put, without
from trainyard.api.addresses import NO_CREDENTIALS
from trainyard.api.crd import rule_messages
from trainyard.api.manifest import InvalidManifest, parse_run, parse_schedule, parse_sweep
from trainyard.api.run.changes import ROOT_RULES
from trainyard.api.run.exports import EXPORTS_LIMIT
from trainyard.api.schedule.trainingschedule import SCHEDULE_ROOT_RULES
from trainyard.api.sweep.trainingsweep import SWEEP_ROOT_RULES

pytestmark = pytest.mark.api

SFT = {"method": "SFT"}
HUB = {"storageUri": "hf://org/name"}
DATASET: Place = ("datasets", 0)
ADAPTED = {**FINE_TUNING, "model": {**HUB, "adapter": {"lora": {}}}}


HARNESS = {"tasks": ["pick"], "includeFrom": "file:///tasks"}


def hub(name: str, *after: str) -> dict[str, Any]:
    target = {"repo": f"org/{name}", "secretRef": {"name": "hub"}}
    return {"name": name, **({"dependsOn": list(after)} if after else {}), "hub": target}


_CHAIN = [f"e{n}" + "x" * 29 for n in range(10, 10 + EXPORTS_LIMIT)]
LONGEST_CHAIN = {**SCRATCH, "exports": [hub(name, *_CHAIN[:index]) for index, name in enumerate(_CHAIN)][::-1]}
"""As many exports as there may be, each after all of those before it, the last one first."""
PAIRS_FROM_NOTHING = put(SCRATCH, (*DATASET, "format"), "Preference")
JUDGING: Place = ("evaluation",)
GATE: Place = (*JUDGING, "gates", 0)
MEASURED: Place = (*JUDGING, "metrics")
CHAMPIONS_SECRET: Place = (*JUDGING, "compareWith", "secretRef")
GAINED = {"metric": "loss", "minimumGain": 0}
MINIMUM = {"gates": [{"metric": "loss", "minimum": 0}]}
TOKEN_GAIN = {"gates": [{"metric": "tokenAccuracy", "minimumGain": 0}]}
EXACT = {"gates": [{"metric": "exactMatch", "minimum": 0}]}


@dataclass(frozen=True)
class Case:
    """A rule's message (its beginning is enough to name it), a spec that breaks it and one that just does not."""

    message: str
    refused: dict[str, Any]
    accepted: dict[str, Any]
    kind: Kind = RUN


CASES: tuple[Case, ...] = (
    Case("the built-in trainer needs spec.model", {"training": SFT}, SCRATCH),
    Case("the built-in trainer needs spec.model", without(SCRATCH, ("datasets",)), SCRATCH),
    Case("the built-in trainer needs spec.model", without(SCRATCH, ("training",)), SCRATCH),
    Case("the built-in trainer needs spec.model", {**SCRATCH, "model": None}, {**SCRIPT, **SCRATCH}),
    Case("spec.args are the arguments of spec.command", {**SCRATCH, "args": ["x"]}, SCRIPT),
    Case(
        "modes DryRun, Debug and Dataset belong to the built-in trainer",
        {**SCRIPT, "mode": "Debug"},
        {**SCRIPT, "mode": "Train"},
    ),
    Case(
        "modes DryRun, Debug and Dataset belong to the built-in trainer",
        {**SCRIPT, "mode": "DryRun"},
        {**SCRATCH, "mode": "DryRun"},
    ),
    Case(
        "spec.storage.workspace is where the script of spec.command works",
        {**SCRATCH, "storage": {"workspace": {"git": {"url": "https://git.example.org/a"}}}},
        put(
            {**SCRATCH, "storage": {"workspace": {"git": {"url": "https://git.example.org/a"}}}},
            ("training", "callbacks"),
            ["lab.stop:Early"],
        ),
    ),
    Case(
        "sparsePaths has a path with ..",
        {**SCRIPT, "storage": {"workspace": {"git": {"url": "https://git.example.org/a", "sparsePaths": ["a/../b"]}}}},
        {**SCRIPT, "storage": {"workspace": {"git": {"url": "https://git.example.org/a", "sparsePaths": ["a/b"]}}}},
    ),
    Case(
        "expectedCount counts records, and puzzle makes or reads grids",
        {**SCRATCH, "datasets": [TEXT, {"name": "grids", "puzzle": {"kind": "Sudoku"}, "expectedCount": 3}]},
        put(SCRATCH, (*DATASET, "expectedCount"), 3),
    ),
    Case("spec.command runs in an image of your own", without(SCRIPT, ("image",)), SCRIPT),
    Case("spec.command runs in an image of your own", {**SCRIPT, "image": ""}, SCRIPT),
    Case(
        "spec.datasets has nothing to train on",
        put(SCRATCH, (*DATASET, "role"), "Eval"),
        {**SCRATCH, "datasets": [TEXT, {**TEXT, "name": "held-out", "role": "Eval"}]},
    ),
    Case(
        "inline data of all datasets together has more than",
        {**SCRATCH, "datasets": [{**TEXT, "name": n, "inline": {"text": "ä" * 131_072 + n[1:]}} for n in ("a", "bx")]},
        {**SCRATCH, "datasets": [{**TEXT, "name": n, "inline": {"text": "ä" * 131_072}} for n in "ab"]},
    ),
    Case("method Pretrain starts from random weights", {**SCRATCH, "model": HUB}, SCRATCH),
    Case(
        "lora.targetModules: all-linear stands for every linear layer",
        put(ADAPTED, ("model", "adapter", "lora", "targetModules"), ["all-linear", "q_proj"]),
        put(ADAPTED, ("model", "adapter", "lora", "targetModules"), ["all-linear"]),
    ),
    Case(
        "lora.dora starts from the base's own weights",
        put(ADAPTED, ("model", "adapter", "lora"), {"dora": True, "initialisation": "PiSSA"}),
        put(ADAPTED, ("model", "adapter", "lora"), {"dora": True}),
    ),
    Case(
        "lora.initialisation PiSSA takes the base's weights apart",
        put(ADAPTED, ("model", "adapter"), {"lora": {"initialisation": "PiSSA"}, "quantization": "NF4"}),
        put(ADAPTED, ("model", "adapter"), {"lora": {"initialisation": "PiSSA"}}),
    ),
    Case(
        "method RewardModel goes on from existing weights",
        {**PAIRS_FROM_NOTHING, "training": {"method": "RewardModel"}},
        {**PAIRS_FROM_NOTHING, "training": {"method": "RewardModel"}, "model": HUB},
    ),
    Case(
        "checkpoints.resumeFrom leaves the volume",
        {**SCRATCH, "checkpoints": {"resumeFrom": "../other"}},
        {**SCRATCH, "checkpoints": {"resumeFrom": "other..one/x"}},
    ),
    Case(
        "method CPT goes on from existing weights",
        put(SCRATCH, ("training", "method"), "CPT"),
        {**put(SCRATCH, ("training", "method"), "CPT"), "model": HUB},
    ),
    Case(  # so there is no Pretrain and no TRM on a packed base
        "an adapter needs existing weights under it",
        put(SCRATCH, ("model", "adapter"), {"lora": {}, "quantization": "NF4"}),
        {**SCRATCH, "model": {**HUB, "adapter": {"lora": {}, "quantization": "NF4"}}, "training": SFT},
    ),
    Case(
        "an adapter needs existing weights under it",
        put(SCRATCH, ("model", "adapter"), {"lora": {}}),
        {**SCRATCH, "model": {**HUB, "adapter": {"lora": {}}}, "training": SFT},
    ),
    Case(
        "methods Pretrain and CPT learn from plain text",
        put(SCRATCH, (*DATASET, "format"), "Messages"),
        put({**SCRATCH, "training": SFT}, (*DATASET, "format"), "Messages"),
    ),
    Case(
        "spec.pushToHub belongs to the built-in",
        {**SCRIPT, "pushToHub": {"repo": "org/name", "secretRef": {"name": "hub"}}},
        {**SCRATCH, "pushToHub": {"repo": "org/name", "secretRef": {"name": "hub"}}},
    ),
    Case("spec.exports belongs to the built-in", {**SCRIPT, "exports": [hub("a")]}, {**SCRATCH, "exports": [hub("a")]}),
    Case(
        "an export has exactly one target",
        {**SCRATCH, "exports": [{**hub("a"), "kserve": {"inferenceService": "a", "storageUri": "s3://b"}}]},
        {**SCRATCH, "exports": [hub("a"), {"name": "b", "kserve": {"inferenceService": "a", "storageUri": "s3://b"}}]},
    ),
    Case(
        "an export has exactly one target", {**SCRATCH, "exports": [{"name": "a"}]}, {**SCRATCH, "exports": [hub("a")]}
    ),
    Case(
        "an export's resources are those of its Job",
        {
            **SCRATCH,
            "exports": [
                {"name": "a", "configMap": {"name": "a", "data": {"k": "v"}}, "resources": {"requests": {"cpu": "1"}}}
            ],
        },
        {**SCRATCH, "exports": [hub("a") | {"resources": {"requests": {"cpu": "1"}}}]},
    ),
    Case(
        "an export cannot be called",
        {**SCRATCH, "exports": [hub("model")]},
        {**SCRATCH, "exports": [hub("models")]},
    ),
    Case(
        "a key of a ConfigMap has letters",
        {**SCRATCH, "exports": [{"name": "a", "configMap": {"name": "agent", "data": {"a b": "x"}}}]},
        {**SCRATCH, "exports": [{"name": "a", "configMap": {"name": "agent", "data": {"A_b.c-1": "x"}}}]},
    ),
    Case(
        "an export's dependsOn names one that does not stand",
        {**SCRATCH, "exports": [hub("a", "c"), hub("b")]},
        {**SCRATCH, "exports": [hub("a", "b"), hub("b")]},
    ),
    Case(
        "exports wait for each other in a circle",
        {**SCRATCH, "exports": [hub("a", "b"), hub("b", "c"), hub("c", "a"), hub("d")]},
        {**SCRATCH, "exports": [hub("a", "b"), hub("b", "c"), hub("c"), hub("d", "a", "b", "c")]},
    ),
    Case("exports wait for each other in a circle", {**SCRATCH, "exports": [hub("a", "a")]}, LONGEST_CHAIN),
    Case(
        "two exports send the same to the same place",
        {**SCRATCH, "exports": [hub("a"), {**hub("a"), "name": "b"}]},
        {**SCRATCH, "exports": [hub("a"), hub("b")]},
    ),
    Case(
        "an export waits for gates",
        {**SCRATCH, "exports": [{**hub("a"), "when": "GatesPassed"}]},
        {**TRM, "exports": [{**hub("a"), "when": "GatesPassed"}]},
    ),
    *(
        Case(
            "{uri} is what the first export of dependsOn has left",
            {**SCRATCH, "exports": [{"name": "a", **target}, sinks.EACH[0][0]]},
            {**SCRATCH, "exports": [{"name": "a", "dependsOn": ["store"], **target}, sinks.EACH[0][0]]},
        )
        for target in ({"kserve": {"inferenceService": "agent"}}, {"git": sinks.COMMIT})
    ),
    *(Case(m, {**SCRATCH, "exports": bad}, {**SCRATCH, "exports": good}) for m, bad, good in formats.BROKEN),
    Case(formats.LANGUAGE_ONLY, {**TRM_TEXT, "exports": formats.EXPORTS}, TRM_TEXT),
    Case(
        formats.WHOLE_ONLY,
        {
            **FINE_TUNING,
            "model": {**FINE_TUNING["model"], "adapter": {"lora": {}, "merge": False}},
            "exports": formats.EXPORTS,
        },
        {
            **FINE_TUNING,
            "model": {**FINE_TUNING["model"], "adapter": {"lora": {}, "merge": True}},
            "exports": formats.EXPORTS,
        },
    ),
    Case(
        "a notification needs url, or secretRef",
        {**SCRATCH, "notifications": [{"name": "a"}]},
        {**SCRATCH, "notifications": [{"name": "a", "secretRef": {"name": "s"}}]},
    ),
    Case(
        "url is an address of the operator's own machine",
        {**SCRATCH, "notifications": [{"name": "a", "url": "http://LocalHost:3000/api"}]},
        {**SCRATCH, "notifications": [{"name": "a", "url": "http://localhost.example.org/api"}]},
    ),
    *(Case(m, {**SCRATCH, "exports": bad}, {**SCRATCH, "exports": good}) for m, bad, good in sinks.BROKEN),
    Case("spec.tracking belongs to the built-in", {**SCRIPT, "tracking": {"tensorboard": True}}, SCRIPT),
    Case(
        "with numNodes above 1",
        {**SCRATCH, "numNodes": 2},
        {**SCRATCH, "numNodes": 2, "storage": {"checkpoints": {"accessModes": ["ReadWriteMany"]}}},
    ),
    Case(
        "with numNodes above 1",
        {**SCRATCH, "numNodes": 2, "placement": {"nodeNames": ["forge", "arcanine"]}},
        {**SCRATCH, "numNodes": 2, "placement": {"nodeNames": ["forge"]}},
    ),
    Case(
        "with numNodes above 1",
        {**SCRATCH, "numNodes": 2, "storage": {"checkpoints": {"claimName": "c", "size": "1Gi"}}},
        {**SCRATCH, "numNodes": 2, "storage": {"checkpoints": {"claimName": "c"}}},
    ),
    Case("method TRM trains spec.model.trm", {**TRM, "model": SCRATCH["model"]}, {**TRM, "numProcPerNode": 2}),
    Case("method TRM trains spec.model.trm", {**SCRATCH, "model": {"trm": {}}}, SCRATCH),
    Case("method TRM learns from puzzles or from records", {**TRM, "datasets": [TEXT]}, TRM_TEXT),
    Case(
        "method TRM learns from puzzles or from records",
        {**TRM, "datasets": [*TRM["datasets"], *put(TRM_TEXT, (*DATASET, "name"), "e")["datasets"]]},
        TRM,
    ),
    Case("method TRM learns from puzzles or from records", {**SCRATCH, "datasets": TRM["datasets"]}, TRM),
    Case("puzzles are for method TRM alone", {"mode": "Dataset", "datasets": TRM["datasets"]}, TRM),
    Case("a Tiny Recursive Model is trained in one go", {**TRM, "phases": [{"name": "first"}]}, TRM),
    Case("evaluation.baselines and minimumGain belong to", {**SCRATCH, "evaluation": {"minimumGain": 0.1}}, TRM),
    Case("a gate asks for something", put(JUDGED[0], GATE, {"metric": "loss"}), JUDGED[0]),
    Case("a gate's minimum is above", put(JUDGED[0], GATE, {**GAINED, "minimum": 2, "maximum": 1}), JUDGED[0]),
    Case("evaluation.gates judge what is measured", put(JUDGED[0], (*JUDGING, "enabled"), False), JUDGED[0]),
    Case("evaluation.gates has a metric that is not measured", put(JUDGED[0], MEASURED, ["perplexity"]), JUDGED[0]),
    Case(
        "evaluation.gates has a metric that is not measured",
        put(put(CHAMPION, MEASURED, ["loss"]), (*GATE, "metric"), "accuracy"),
        put(CHAMPION, (*GATE, "metric"), "accuracy"),
    ),
    Case(
        "evaluation.compareWith needs exactly one of",
        put(JUDGED[0], (*JUDGING, "compareWith"), {"baseModel": {}, "run": "a"}),
        JUDGED[2],
    ),
    Case("evaluation.compareWith.secretRef is for", put(JUDGED[0], CHAMPIONS_SECRET, {"name": "a"}), JUDGED[1]),
    Case("evaluation.gates with minimumGain need", {**HELD_OUT, "evaluation": GAIN}, JUDGED[0]),
    Case("evaluation.compareWith is what a gain is over", without(JUDGED[0], (*JUDGING, "gates")), JUDGED[0]),
    Case("only methods SFT and Distillation learn answers", put(JUDGED[0], (*GATE, "metric"), "accuracy"), JUDGED[0]),
    Case("evaluation.compareWith.mlflow asks the server", without(CHAMPION, ("tracking",)), CHAMPION),
    Case("evaluation.metrics, gates and compareWith judge answers", {**REWARDED, "evaluation": MINIMUM}, HELD_OUT),
    Case("method TRM is judged by gates", {**TRM, "evaluation": TOKEN_GAIN}, {**TRM, "evaluation": EXACT}),
    Case("method TRM is judged by gates", {**TRM, "evaluation": MINIMUM}, {**TRM, "evaluation": EXACT}),
    Case("method TRM is judged by gates", {**TRM, "evaluation": {"harness": HARNESS}}, {**TRM, "evaluation": EXACT}),
    Case("evaluation.gates and harness belong to the built-in", {**SCRIPT, "evaluation": MINIMUM}, SCRIPT),
    Case("evaluation.gates and harness belong to the built-in", {**SCRIPT, "evaluation": {"harness": HARNESS}}, SCRIPT),
    Case("evaluation.gates and harness need held-out records", put(JUDGED[0], (*JUDGING, "split"), "Test"), JUDGED[0]),
    Case(
        "evaluation.gates and harness need held-out records",
        {**SCRATCH, "evaluation": {"harness": HARNESS}},
        {**HELD_OUT, "evaluation": {"harness": HARNESS}},
    ),
    Case(
        "evaluation.harness is asked in the evaluation",
        {**HELD_OUT, "evaluation": {"harness": HARNESS, "enabled": False}},
        {**HELD_OUT, "evaluation": {"harness": HARNESS}},
    ),
    Case(
        "evaluation.gates has a metric task/metric whose task",
        put(CHAMPION, (*GATE, "metric"), "picked/acc"),
        put(CHAMPION, (*GATE, "metric"), "pick/acc"),
    ),
    Case(
        "bleu, chrf, ter are of a task as a whole",
        put(CHAMPION, (*GATE, "metric"), "pick/bleu.strict"),
        put(put(CHAMPION, (*GATE, "metric"), "pick/bleu.strict"), (*GATE, "confidence"), 0),
    ),
    Case(
        "evaluation.baselineAnswers is about answers",
        put(CHAMPION, (*JUDGING, "baseline"), False),
        put(CHAMPION, (*JUDGING, "baseline"), True),
    ),
    Case(
        "evaluation.baselineAnswers is about answers",
        {**HELD_OUT, "evaluation": {"baselineAnswers": True}},
        {**HELD_OUT, "evaluation": {"baselineAnswers": False}},
    ),
    Case("training.trm belongs to method TRM", put(SCRATCH, ("training", "trm"), {}), TRM),
    Case(
        "method TRM has its own loop",
        put(TRM, ("training", "lrSchedulerType"), "polynomial"),
        put(TRM, ("training", "lrSchedulerType"), "cosine"),
    ),
    Case("method TRM has its own loop", put(TRM, ("training", "precision"), "FP16"), TRM),
    Case("model.trm: hiddenSize must be divisible", put(TRM, ("model", "trm", "numHeads"), 5), TRM),
    Case("training.trm.task FreeForm", put(TRM_TEXT, ("training", "trm"), {"task": "FreeForm"}), TRM),
    Case(
        "the size of a Sudoku is 4, 6 or 9: set puzzle.size to one of these",
        put(TRM, (*DATASET, "puzzle", "size"), 5),
        TRM,
    ),
    Case(
        "the size of a maze is at least 7: raise puzzle.size",
        put(TRM, (*DATASET, "puzzle"), {"kind": "Maze", "size": 5}),
        TRM,
    ),
    Case("puzzles of kind ARC and Arrays", put(TRM, (*DATASET, "puzzle"), {"kind": "ARC"}), TRM),
    Case("spec.phases belong to the built-in trainer", {**PHASED, **SCRIPT}, PHASED),
    Case("spec.phases names a dataset", put(PHASED, ("phases", 0, "datasets"), ["other"]), PHASED),
    Case("spec.runPhases names a phase", {**PHASED, "runPhases": ["third"]}, {**PHASED, "runPhases": ["first"]}),
    Case("spec.runPhases names a phase", {**SCRATCH, "runPhases": ["first"]}, {**SCRATCH, "runPhases": []}),
    Case(
        "a phase goes on from a whole model",
        put(PHASED, ("model", "adapter"), {"lora": {}, "merge": False}),
        put(PHASED, ("model", "adapter"), {"lora": {}}),
    ),
    Case(
        "methods Pretrain and CPT learn from plain text",
        put(SCRATCH, (*DATASET, "generate"), {}),
        put(put(SCRATCH, (*DATASET, "generate"), {}), (*DATASET, "convertTo"), "Text"),
    ),
    Case("mode Dataset builds spec.datasets", {"mode": "Dataset"}, {"mode": "Dataset", "datasets": [TEXT]}),
    Case(
        "spec.datasetUpload needs something to upload",
        {**SCRIPT, "datasetUpload": {"storageUri": "s3://bucket/a"}},
        {**SCRATCH, "datasetUpload": {"storageUri": "s3://bucket/a"}},
    ),
    Case(
        "selectionStrategy says which records limit takes",
        put(SCRATCH, (*DATASET, "selectionStrategy"), "First"),
        put(put(SCRATCH, (*DATASET, "selectionStrategy"), "First"), (*DATASET, "limit"), 3),
    ),
    Case(
        "timeField is read by selectionStrategy Latest alone",
        put(SCRATCH, (*DATASET, "timeField"), "at"),
        put(
            put(put(SCRATCH, (*DATASET, "timeField"), "at"), (*DATASET, "selectionStrategy"), "Latest"),
            (*DATASET, "limit"),
            3,
        ),
    ),
    Case(
        "a filter with operator Exists or DoesNotExist has no values",
        put(SCRATCH, (*DATASET, "filters"), [{"field": "a", "operator": "Exists", "values": ["b"]}]),
        put(SCRATCH, (*DATASET, "filters"), [{"field": "a", "operator": "Exists"}]),
    ),
    Case(
        "a filter with operator Exists or DoesNotExist has no values",
        put(SCRATCH, (*DATASET, "filters"), [{"field": "a", "operator": "In"}]),
        put(SCRATCH, (*DATASET, "filters"), [{"field": "a", "operator": "In", "values": ["b"]}]),
    ),
    Case(
        "methods SFT and Distillation learn from answers",
        put({**SCRATCH, "training": SFT}, (*DATASET, "format"), "Preference"),
        {**SCRATCH, "training": SFT},
    ),
    Case(
        "methods DPO, ORPO and RewardModel learn from pairs",
        {**SCRATCH, "training": {"method": "ORPO"}},
        put({**SCRATCH, "training": {"method": "DPO"}}, (*DATASET, "format"), "Preference"),
    ),
    Case("methods PPO, GRPO and RLOO write their own answers", put(REWARDED, (*DATASET, "format"), "Text"), REWARDED),
    Case("methods PPO, GRPO and RLOO need training.rewards", without(REWARDED, ("training", "rewards")), REWARDED),
    Case("methods PPO, GRPO and RLOO need training.rewards", put(REWARDED, ("training", "method"), "SFT"), REWARDED),
    Case("method Distillation needs training.teacher", without(TAUGHT, ("training", "teacher")), TAUGHT),
    Case("method Distillation needs training.teacher", put(TAUGHT, ("training", "method"), "SFT"), TAUGHT),
    Case(
        "training.teacher needs exactly one of",
        put(TAUGHT, ("training", "teacher", "http"), {"url": "http://large/v1", "model": "large"}),
        TAUGHT,
    ),
    Case(
        "training.teacher.secretRef is for storageUri",
        put(
            TAUGHT,
            ("training", "teacher"),
            {"http": {"url": "http://large/v1", "model": "large"}, "secretRef": {"name": "s"}},
        ),
        TAUGHT,
    ),
    Case("a reward needs exactly one of", put(REWARDED, ("training", "rewards", 0, "jsonValid"), {}), REWARDED),
    Case(
        "training.earlyStopping looks at the evaluations of evalSteps",
        put(SCRATCH, ("training", "earlyStopping"), {"patience": 2}),
        put(put(SCRATCH, ("training", "earlyStopping"), {"patience": 2}), ("training", "evalSteps"), 5),
    ),
    Case(
        "method KTO learns from answers that were judged",
        {**SCRATCH, "training": {"method": "KTO"}},
        put({**SCRATCH, "training": {"method": "KTO"}}, (*DATASET, "format"), "Preference"),
    ),
    Case(
        "methods Distillation, DPO, ORPO, RewardModel, KTO, PPO, GRPO and RLOO train in one process",
        {**REWARDED, "numProcPerNode": 2},
        REWARDED,
    ),
    Case(
        "methods PPO, GRPO and RLOO compare probabilities",
        put(REWARDED, ("model", "adapter"), {"lora": {"dropout": 0.1}}),
        put(REWARDED, ("model", "adapter"), {"lora": {}}),
    ),
    Case("spec.model needs exactly one of", put(SCRATCH, ("model", "storageUri"), "hf://a/b"), SCRATCH),
    Case("spec.model needs exactly one of", {**SCRATCH, "model": {"secretRef": {"name": "s"}}}, SCRATCH),
    Case(
        "a scratch model's tokenizer needs exactly one of",
        put(SCRATCH, ("model", "scratch", "tokenizer"), {}),
        SCRATCH_WITH_TOKENIZER,
    ),
    Case(
        "a scratch model's tokenizer needs exactly one of",
        put(SCRATCH, ("model", "scratch", "tokenizer", "storageUri"), "hf://a/b"),
        SCRATCH,
    ),
    Case("inline data needs exactly one of", put(SCRATCH, (*DATASET, "inline"), {}), SCRATCH),
    Case("inline data needs exactly one of", put(SCRATCH, (*DATASET, "inline", "records"), [{"text": "x"}]), SCRATCH),
    Case(
        "split.eval and split.test together must stay below 1",
        put(SCRATCH, (*DATASET, "split"), {"eval": 0.5, "test": 0.5}),
        put(SCRATCH, (*DATASET, "split"), {"eval": 0.5, "test": 0.4}),
    ),
    Case("a dataset needs exactly one source", without(SCRATCH, (*DATASET, "inline")), SCRATCH),
    Case("a dataset needs exactly one source", put(SCRATCH, (*DATASET, "storageUri"), "s3://bucket/key"), SCRATCH),
    Case(
        "split holds out a share of training data",
        {**SCRATCH, "datasets": [TEXT, {**TEXT, "name": "e", "role": "Eval", "split": {"eval": 0.1}}]},
        put(SCRATCH, (*DATASET, "split"), {"eval": 0.1}),
    ),
    Case(
        "maxSteps and numTrainEpochs exclude each other",
        put(SCRATCH, ("training", "maxSteps"), 5),
        without(SCRATCH, ("training", "numTrainEpochs")),
    ),
    *(
        Case(
            "podTemplate.env must not set variables that begin with",
            put(SCRATCH, ("podTemplate", "env"), [{"name": "A"}, {"name": name}]),
            put(SCRATCH, ("podTemplate", "env"), [{"name": "A"}, {"name": f"MY_{name}"}]),
        )
        for name in ("TRAINYARD_STEP", "KUBEFLOW_TRAINER_SERVER_URL")
    ),
    Case(
        "storage.workspace is either a repository (git) or one file (script)",
        {**SCRIPT, "storage": {"workspace": {}}},
        {**SCRIPT, "storage": {"workspace": {"script": {"url": "https://a.example.org/a/x.py", "sha256": "0" * 64}}}},
    ),
    Case(
        "storage.workspace.script.url must end with the name of a file",
        {**SCRIPT, "storage": {"workspace": {"script": {"url": "https://a.example.org/x.py/", "sha256": "0" * 64}}}},
        {**SCRIPT, "storage": {"workspace": {"script": {"url": "https://a.example.org/x.py?raw", "sha256": "0" * 64}}}},
    ),
    Case(
        "an init container is called trainer",
        put(SCRATCH, ("podTemplate", "initContainers"), [{"name": "trainer", "image": "a"}]),
        put(SCRATCH, ("podTemplate", "initContainers"), [{"name": "fetch", "image": "a"}]),
    ),
)


def source(**source: Any) -> dict[str, Any]:
    return {**SCRATCH, "datasets": [{"name": "d", **source}]}


GIT = {"url": "https://git.example.org/a.git"}
METRICS = {"url": "http://prometheus.example.org:9090", "queries": ["up"]}
MADE_OF_COLLECTED: tuple[dict[str, Any], ...] = ({"generate": {}}, {"columns": {"prompt": "a", "completion": "b"}})
STORE = {"url": "http://traces.example.org:8000"}
CASES += (
    *(
        Case(
            "what code, prometheus, loki, tempo and runbook collect",
            {**source(**{kind: value}, format="PromptCompletion"), "training": SFT},
            {**source(**{kind: value}, format="PromptCompletion", **more), "training": SFT},
        )
        for kind, value in (("runbook", GIT), ("prometheus", METRICS))
        for more in MADE_OF_COLLECTED
    ),
    Case("a dataset needs exactly one source", source(code=GIT, inline={"text": "x"}), source(code=GIT)),
    *(
        case
        for kind in ("code", "runbook")
        for case in (
            Case("give exactly one of url", source(**{kind: {}}), source(**{kind: GIT})),
            Case(
                "give exactly one of url",
                source(**{kind: {**GIT, "storageUri": "pvc://c/x"}}),
                source(**{kind: {"storageUri": "pvc://c/x"}}),
            ),
            Case(
                "ref names a branch, tag or commit",
                source(**{kind: {"storageUri": "pvc://c/x", "ref": "main"}}),
                source(**{kind: {**GIT, "ref": "main"}}),
            ),
        )
    ),
    Case(
        "spanHours and stepSeconds make more than 11000 points",
        source(prometheus={**METRICS, "stepSeconds": 7}),
        source(prometheus={**METRICS, "stepSeconds": 8}),
    ),
    Case(
        "datasetName and datasetVersion belong together",
        source(traces={**STORE, "datasetName": "d"}),
        source(traces={**STORE, "datasetName": "d", "datasetVersion": "v1"}),
    ),
    Case(
        "give exactly one of url (the store's HTTP API) and database",
        source(traces={**STORE, "database": {}}, secretRef={"name": "s"}),
        source(traces={"database": {}}, secretRef={"name": "s"}),
    ),
    Case(
        "traces.database has its address in a Secret",
        source(traces={"database": {}}),
        source(traces={"database": {}}, secretRef={"name": "s"}),
    ),
    Case(
        "a store exports no TRM",
        source(traces={**STORE, "exportFormat": "TRM", "datasetName": "d", "datasetVersion": "v1"}),
        source(traces={"database": {}, "exportFormat": "TRM"}, secretRef={"name": "s"}),
    ),
    Case(
        "exportFormat needs a dataset that the server builds",
        source(traces={**STORE, "exportFormat": "TunixSFT"}),
        source(traces={**STORE, "exportFormat": "TunixSFT", "datasetName": "d", "datasetVersion": "v1"}),
    ),
)


def schedule_case(message: str, refused: dict[str, Any], accepted: dict[str, Any]) -> Case:
    """The same of a schedule; the template is added."""
    return Case(message, {**refused, "template": TEMPLATE}, {**accepted, "template": TEMPLATE}, SCHEDULE)


def trigger(**source: Any) -> dict[str, Any]:
    return {"triggers": [{"name": "t", **source}]}


HOURLY = {"intervalSeconds": 3600}
MLFLOW = at(BY_ALIAS, ("triggers", 0, "mlflowMetric"))
CASES += (
    schedule_case("schedule and intervalSeconds exclude each other", {"schedule": "0 4 * * *", **HOURLY}, HOURLY),
    schedule_case("nothing would ever start a run", {}, {"schedule": "0 4 * * *"}),
    schedule_case(
        "nothing would ever start a run", {"triggers": []}, trigger(dataset={"url": "https://a.example.org/x"})
    ),
    schedule_case("timeZone belongs to schedule", {**HOURLY, "timeZone": "Europe/Berlin"}, HOURLY),
    schedule_case("a trigger needs exactly one of", trigger(), trigger(mlflowMetric=MLFLOW)),
    schedule_case(
        "a trigger needs exactly one of",
        trigger(mlflowMetric=MLFLOW, dataset={"url": "https://a.example.org/x"}),
        trigger(gitPath={"url": "https://a.example.org/x.git"}),
    ),
    schedule_case(
        "mlflowMetric needs exactly one of alias and stage",
        trigger(mlflowMetric={**MLFLOW, "stage": "Production"}),
        trigger(mlflowMetric=MLFLOW),
    ),
    Case(
        "template.spec.suspend would make runs that never start",
        {**HOURLY, "template": put(TEMPLATE, ("spec", "suspend"), True)},
        {**HOURLY, "template": put(TEMPLATE, ("spec", "suspend"), False)},
        SCHEDULE,
    ),
    schedule_case(
        "the schedule's and each variant's name together",
        {**HOURLY, "variants": [{"name": "v" * 38}]},
        {**HOURLY, "variants": [{"name": "v" * 37}]},
    ),
)

RATE: Place = ("parameters", 0, "double")
WARM_UP: Place = ("parameters", 0, "int")


def sweep_case(message: str, refused: dict[str, Any], accepted: dict[str, Any] = COMPLETE_SWEEP) -> Case:
    return Case(message, refused, accepted, SWEEP)


CASES += (
    sweep_case("template.spec.suspend would make trials", put(COMPLETE_SWEEP, ("template", "spec", "suspend"), True)),
    sweep_case(
        "numTrials says when the sweep ends",
        without(COMPLETE_SWEEP, ("numTrials",)),
        {**without(COMPLETE_SWEEP, ("numTrials",)), "algorithm": "Grid"},
    ),
    sweep_case(
        "earlyStopping compares trials while they train",
        put(COMPLETE_SWEEP, ("objective", "metric"), "eval/loss"),
        without(put(COMPLETE_SWEEP, ("objective", "metric"), "eval/loss"), ("earlyStopping",)),
    ),
    sweep_case(
        "earlyStopping counts the steps of one training",
        put(COMPLETE_SWEEP, ("template", "spec", "phases"), [{"name": "one", "training": {"maxSteps": 5}}]),
    ),
    sweep_case("a parameter needs exactly one of", without(COMPLETE_SWEEP, RATE)),
    sweep_case(
        "a parameter cannot vary which Secret",
        put(COMPLETE_SWEEP, ("parameters", 0, "name"), "datasets[0].secretRef.name"),
        put(COMPLETE_SWEEP, ("parameters", 0, "name"), "datasets[0].weight"),
    ),
    sweep_case("a parameter's min must be below its max", put(COMPLETE_SWEEP, (*RATE, "min"), 0.1)),
    sweep_case("a parameter's min must be below its max", put(WHOLE_NUMBERS, (*WARM_UP, "min"), 100), WHOLE_NUMBERS),
    sweep_case(
        "a logarithmic scale has no 0",
        put(COMPLETE_SWEEP, (*RATE, "min"), 0),
        put(put(COMPLETE_SWEEP, (*RATE, "min"), 0), (*RATE, "log"), False),
    ),
    sweep_case("a logarithmic scale has no 0", put(WHOLE_NUMBERS, (*WARM_UP, "min"), 0), WHOLE_NUMBERS),
)

ADDRESSES = [
    (kind, place)
    for kind in (RUN, SCHEDULE, SWEEP)
    for place, node in kind.fields()
    if node.get("type") == "string" and NO_CREDENTIALS.message in rule_messages(node)
]
CASES += tuple(
    Case(
        NO_CREDENTIALS.message,
        put(kind.home(place), place, f"https://me:pa55{secret}@host/path"),
        kind.home(place),
        kind,
    )
    for kind, place in ADDRESSES
    for secret in ("", "/")
)


def label(case: Case) -> str:
    return f"{case.kind.fixture}:{case.message[:50].replace(' ', '-')}"


@pytest.fixture
def objects(request: pytest.FixtureRequest) -> Objects:
    found: Objects = request.getfixturevalue(request.node.callspec.params["case"].kind.fixture)
    return found


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_broken_rule_is_refused_with_our_words_by_both(case: Case, objects: Objects) -> None:
    manifest = case.kind.manifest(case.refused)
    answer = objects.dry_run(manifest)
    assert answer.code == 422, answer.message
    assert case.message in answer.message
    with pytest.raises(InvalidManifest) as caught:
        case.kind.parse(manifest)
    assert any(fault.message.startswith(case.message) for fault in caught.value.faults), caught.value.faults


@pytest.mark.parametrize("case", CASES, ids=label)
def test_what_keeps_the_rule_is_accepted_by_both(case: Case, objects: Objects) -> None:
    manifest = case.kind.manifest(case.accepted)
    answer = objects.dry_run(manifest)
    assert answer.accepted, answer.message
    case.kind.parse(manifest)


@pytest.mark.parametrize("kind", [RUN, SCHEDULE, SWEEP], ids=lambda k: k.fixture)
def test_every_rule_of_the_spec_has_a_case(kind: Kind) -> None:
    for message in rule_messages(kind.spec):
        assert any(message.startswith(case.message) for case in CASES), f"no case breaks the rule {message!r}"


@pytest.mark.parametrize("name", ["a" * 40, "with.dot"])
def test_a_schedules_name_that_runs_cannot_carry_is_refused_by_both(name: str, schedules: Objects) -> None:
    manifest = schedule({**HOURLY, "template": TEMPLATE}, name=name)
    assert SCHEDULE_ROOT_RULES[0].message in schedules.dry_run(manifest).message
    with pytest.raises(InvalidManifest, match="name"):
        parse_schedule(manifest)


def test_the_longest_name_of_a_schedule_is_accepted_by_both(schedules: Objects) -> None:
    manifest = schedule({**HOURLY, "template": TEMPLATE}, name="a" * 39)
    assert schedules.dry_run(manifest).accepted
    parse_schedule(manifest)


def test_of_several_rules_about_one_value_every_broken_one_is_told_by_both(runs: Objects) -> None:
    manifest = run({**put(SCRATCH, (*DATASET, "format"), "Messages"), "model": HUB})
    answer = runs.dry_run(manifest).message
    with pytest.raises(InvalidManifest) as caught:
        parse_run(manifest)
    told = [str(fault.message) for fault in caught.value.faults]
    assert len(told) == 2
    assert all(message in answer for message in told), answer
    assert "method CPT goes on" not in answer


@pytest.mark.parametrize("text", ["org/{verison}", "org/{agent}-{Date}", "org/{name"])
def test_a_placeholder_that_is_not_known_is_refused_by_both(text: str, runs: Objects) -> None:
    manifest = run({**SCRATCH, "exports": [{"name": "a", "hub": {"repo": text, "secretRef": {"name": "hub"}}}]})
    answer = runs.dry_run(manifest)
    assert answer.code == 422
    assert "spec.exports[0].hub.repo" in answer.message
    with pytest.raises(InvalidManifest, match="is no placeholder; there are"):
        parse_run(manifest)


def test_braces_that_are_no_placeholder_are_left_alone_by_both(runs: Objects) -> None:
    data = {"json": '{"model": "{model}", "empty": {}}', "flow": "{ a: 1 }"}
    manifest = run({**SCRATCH, "exports": [{"name": "a", "configMap": {"name": "agent", "data": data}}]})
    answer = runs.dry_run(manifest)
    assert answer.accepted, answer.message
    parse_run(manifest)


@pytest.mark.parametrize(("field", "exports"), sinks.MALFORMED)
def test_a_place_that_is_none_is_refused_by_both(field: str, exports: list[dict[str, Any]], runs: Objects) -> None:
    manifest = run({**SCRATCH, "exports": exports})
    answer = runs.dry_run(manifest)
    assert answer.code == 422
    assert f"spec.exports[1].{field}" in answer.message
    with pytest.raises(InvalidManifest, match=rf"spec\.exports\[1\]\.{field}"):
        parse_run(manifest)


def test_two_phases_of_one_name_are_refused_by_both(runs: Objects) -> None:
    twice = {**PHASED, "phases": [{"name": "first"}, {"name": "first"}], "runPhases": []}
    assert 'spec.phases[1]: Duplicate value: {"name":"first"}' in runs.dry_run(run(twice)).message
    with pytest.raises(InvalidManifest, match="two phases have the same name: rename one of them"):
        parse_run(run(twice))


def test_two_datasets_of_one_name_are_refused_by_both(runs: Objects) -> None:
    twice = {**SCRATCH, "datasets": [TEXT, TEXT]}
    assert 'spec.datasets[1]: Duplicate value: {"name":"d"}' in runs.dry_run(run(twice)).message
    with pytest.raises(InvalidManifest, match="two datasets have the same name: rename one of them"):
        parse_run(run(twice))


@pytest.mark.parametrize("name", ["a" * 51, "with.dot"])
def test_a_name_that_jobs_cannot_carry_is_refused_by_both(name: str, runs: Objects) -> None:
    answer = runs.dry_run(run(SCRATCH, name=name))
    assert answer.code == 422
    assert ROOT_RULES[0].message in answer.message
    with pytest.raises(InvalidManifest, match="name"):
        parse_run(run(SCRATCH, name=name))


def test_the_longest_name_is_accepted_by_both(runs: Objects) -> None:
    assert runs.dry_run(run(SCRATCH, name="a" * 50)).accepted
    assert parse_run(run(SCRATCH, name="a" * 50)).metadata.name == "a" * 50


def test_the_wrong_version_of_everything_at_once_names_every_fault(runs: Objects) -> None:
    """What the table in docs/use/errors.md promises: the whole list in one answer."""
    spec = put(put(FINE_TUNING, ("training", "maxSteps"), -5), ("checkpoints", "keepLast"), 0)
    answer = runs.dry_run(run(spec))
    assert "spec.training.maxSteps" in answer.message
    assert "spec.checkpoints.keepLast" in answer.message


@pytest.mark.parametrize("name", ["a" * 47, "with.dot"])
def test_a_sweeps_name_that_runs_cannot_carry_is_refused_by_both(name: str, sweeps: Objects) -> None:
    manifest = sweep(COMPLETE_SWEEP, name=name)
    assert SWEEP_ROOT_RULES[0].message in sweeps.dry_run(manifest).message
    with pytest.raises(InvalidManifest, match="name"):
        parse_sweep(manifest)


def test_the_longest_name_of_a_sweep_is_accepted_by_both(sweeps: Objects) -> None:
    manifest = sweep(COMPLETE_SWEEP, name="a" * 46)
    assert sweeps.dry_run(manifest).accepted
    parse_sweep(manifest)


@pytest.fixture(scope="module")
def made(sweeps: Objects) -> Objects:
    assert (answer := sweeps.create(sweep(COMPLETE_SWEEP, name="made"))).accepted, answer.message
    return sweeps


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("parameters",), [{"name": "training.learningRate", "double": {"min": 0.1, "max": 1}}], "parameters"),
        (("objective", "direction"), "Maximize", "objective"),
        (("algorithm",), "Random", "algorithm"),
        (("seed",), 2, "seed"),
        (("earlyStopping",), None, "earlyStopping"),
        (("earlyStopping", "asha", "rungs"), 1, "earlyStopping"),
        (("template", "spec", "training", "maxSteps"), 90, "template"),
        (("template", "metadata", "labels"), {"team": "b"}, "template"),
        (("numTrials",), 19, "numTrials may grow and not shrink"),
        (("numTrials",), None, "numTrials"),
    ],
)
def test_what_trials_are_compared_by_is_fixed(place: Place, value: Any, field: str, made: Objects) -> None:
    answer = made.patch("made", {"spec": put({}, place, value)}, dry_run=True)
    assert answer.code == 422, answer.message
    assert f"spec.{field}" in answer.message


@pytest.mark.parametrize(
    ("field", "value"), [("numTrials", 21), ("parallelTrials", 5), ("maxFailedTrials", 0), ("suspend", True)]
)
def test_the_rest_may_change_at_any_time(field: str, value: Any, made: Objects) -> None:
    answer = made.patch("made", {"spec": {field: value}}, dry_run=True)
    assert answer.accepted, answer.message
