"""The CustomResourceDefinitions, generated from the pydantic models.

Kubernetes wants a structural schema: no `$ref`, no `anyOf` with null, no `additionalProperties: false`, types
everywhere. Pydantic's JSON Schema has all of these, so it is rewritten here, and the models' rules become
`x-kubernetes-validations`. `python -m trainyard.api.crd` writes `crds/`; a test compares the two.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from trainyard.api import GROUP, VERSION
from trainyard.api.base import ApiModel, Fetched, Rule
from trainyard.api.compatibility import SCHEMA_ANNOTATION, schema_digest
from trainyard.api.run.changes import ROOT_RULES
from trainyard.api.run.status import TrainingRunStatus
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.schedule.status import TrainingScheduleStatus
from trainyard.api.schedule.trainingschedule import SCHEDULE_ROOT_RULES, TrainingScheduleSpec
from trainyard.api.sweep.status import TrainingSweepStatus
from trainyard.api.sweep.trainingsweep import SWEEP_ROOT_RULES, TrainingSweepSpec

Schema = dict[str, Any]

_KEPT = (
    "type", "description", "format", "pattern", "enum", "default", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items", "additionalProperties",
    "anyOf", "allOf", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-validations",
)  # fmt: skip

UNSEEN_GENERATION = -1
"""`status.observedGeneration` of an object that the operator has not seen yet; equal to no generation."""

PRINTER_COLUMNS = (
    ("State", "string", ".status.state", 0, "What it is doing"),
    ("Method", "string", ".status.summary.method", 0, "Training method"),
    ("Model", "string", ".status.summary.model", 0, "Model that is trained"),
    ("Progress", "string", ".status.summary.progress", 0, "How much is done"),
    ("Step", "string", ".status.summary.step", 0, "Optimizer steps done and in all"),
    ("Loss", "string", ".status.summary.loss", 0, "Newest loss"),
    ("ETA", "string", ".status.summary.eta", 0, "Time left at the present speed"),
    ("Restarts", "integer", ".status.restarts", 0, "Attempts beyond the first of each step"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created"),
    ("Node", "string", ".status.summary.node", 1, "Node of the newest pod"),
    ("Phase", "string", ".status.summary.stepName", 1, "Step that is under way"),
    ("Checkpoint", "integer", ".status.checkpoint.step", 1, "Step of the newest checkpoint"),
    ("Message", "string", ".status.message", 1, "What happens, or why it waits"),
)

SCHEDULE_COLUMNS = (
    ("Schedule", "string", ".status.summary", 0, "What starts runs"),
    ("State", "string", ".status.state", 0, "How it stands"),
    ("Last run", "string", ".status.lastRun.name", 0, "Newest run"),
    ("Result", "string", ".status.lastRun.state", 0, "State of the newest run"),
    ("Next", "string", ".status.nextScheduleTime", 0, "Next start by the clock, in UTC"),
    ("Created", "integer", ".status.runs.created", 1, "Runs made so far"),
    ("Missed", "integer", ".status.runs.missed", 1, "Starts that nobody was there to make"),
    ("Skipped", "integer", ".status.runs.skipped", 1, "Starts that something was in the way of"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created"),
    ("Zone", "string", ".spec.timeZone", 1, "Time zone of the cron expression"),
    ("Message", "string", ".status.message", 1, "What comes next, or what is in the way"),
)

SWEEP_COLUMNS = (
    ("State", "string", ".status.state", 0, "How it stands"),
    ("Best", "string", ".status.best.value", 0, "Value of the best trial that has trained to its end"),
    ("Trials", "string", ".status.summary", 0, "Trials that are done, and all"),
    ("Metric", "string", ".spec.objective.metric", 0, "What is compared"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was created"),
    ("Run", "string", ".status.best.run", 1, "Run of the best trial"),
    ("Algorithm", "string", ".spec.algorithm", 1, "How trials are chosen"),
    ("Failed", "integer", ".status.trialCounts.failed", 1, "Trials that have failed or have no value"),
    ("Message", "string", ".status.message", 1, "What happens, or what is in the way"),
)


def training_run_crd() -> Schema:
    """The whole CustomResourceDefinition of TrainingRun."""
    return _definition(
        "TrainingRun",
        short_names=["trun", "tr"],
        columns=PRINTER_COLUMNS,
        description="One training, from data to an evaluated model.",
        spec=TrainingRunSpec,
        status=TrainingRunStatus,
        rules=ROOT_RULES,
    )


def training_schedule_crd() -> Schema:
    """The whole CustomResourceDefinition of TrainingSchedule."""
    return _definition(
        "TrainingSchedule",
        short_names=["tsched"],
        columns=SCHEDULE_COLUMNS,
        description="A template of a TrainingRun, and what makes runs of it: clock, triggers, people.",
        spec=TrainingScheduleSpec,
        status=TrainingScheduleStatus,
        rules=SCHEDULE_ROOT_RULES,
    )


def training_sweep_crd() -> Schema:
    """The whole CustomResourceDefinition of TrainingSweep."""
    return _definition(
        "TrainingSweep",
        short_names=["tsweep"],
        columns=SWEEP_COLUMNS,
        description="A template of a TrainingRun, what is varied in it, and which metric is to become best.",
        spec=TrainingSweepSpec,
        status=TrainingSweepStatus,
        rules=SWEEP_ROOT_RULES,
    )


def _definition(
    kind: str,
    *,
    short_names: list[str],
    columns: tuple[tuple[str, str, str, int, str], ...],
    description: str,
    spec: type[ApiModel],
    status: type[ApiModel],
    rules: tuple[Rule, ...],
) -> Schema:
    plural = f"{kind.lower()}s"
    definition: Schema = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            # A deleted CRD takes every object and its history along; helm uninstall must not do that by the way.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short_names,
                "categories": ["trainyard"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "priority": priority, "description": told}
                        for name, type_, path, priority, told in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
                                "kind": {"type": "string", "description": f"{kind}."},
                                "metadata": {"type": "object"},
                                "spec": structural(spec),
                                # Without any status a new object counts as done to kstatus, until the operator has
                                # looked at it.
                                # Atomic: it has one writer, so nobody has to note who owns which of its fields. The
                                # notes of a new run's status were a sixth of the object, at every write and watch.
                                "status": {
                                    **structural(status),
                                    "default": {"observedGeneration": UNSEEN_GENERATION},
                                    "x-kubernetes-map-type": "atomic",
                                },
                            },
                            "x-kubernetes-validations": _validations(rules),
                        }
                    },
                }
            ],
        },
    }
    definition["metadata"]["annotations"][SCHEMA_ANNOTATION] = schema_digest(definition)
    return definition


def structural(model: type[ApiModel]) -> Schema:
    """The structural schema of a model.

    The API server fills in the defaults of an object that is there, and adds none that is absent: what nobody wrote would
    have to be checked, stored and sent on at every write of the run.
    """
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {}) | {model.__name__: schema}
    return _rewrite({"$ref": f"#/$defs/{model.__name__}"}, definitions, _models_by_name(model))


def _models_by_name(model: type[BaseModel]) -> dict[str, type[ApiModel]]:
    found: dict[str, type[ApiModel]] = {}
    queue: list[Any] = [model]
    while queue:
        annotation = queue.pop()
        if isinstance(annotation, type) and issubclass(annotation, ApiModel) and annotation.__name__ not in found:
            found[annotation.__name__] = annotation
            queue.extend(f.annotation for f in annotation.model_fields.values())
        queue.extend(get_args(annotation))
    return found


def _rewrite(schema: Schema, definitions: Schema, models: dict[str, type[ApiModel]]) -> Schema:
    if name := schema.get("$ref", "").rpartition("/")[2]:
        model = models[name]
        node = _rewrite(definitions[name], definitions, models)
        node["description"] = schema.get("description") or (model.__doc__ or "").strip().split("\n\n")[0]
        if model.rules:
            node["x-kubernetes-validations"] = _validations(model.rules)
        return node
    if "anyOf" in schema and "x-kubernetes-int-or-string" not in schema:
        variants = [v for v in schema["anyOf"] if v.get("type") != "null"]
        if len(variants) != 1:
            raise ValueError(f"a union of types has no structural schema: {schema}")
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "default")}
        return _rewrite({**variants[0], **rest}, definitions, models)

    node = {key: value for key, value in schema.items() if key in _KEPT}
    if "const" in schema:
        node["enum"] = [schema["const"]]
    if "exclusiveMinimum" in schema:
        node["minimum"], node["exclusiveMinimum"] = schema["exclusiveMinimum"], True
    if "exclusiveMaximum" in schema:
        node["maximum"], node["exclusiveMaximum"] = schema["exclusiveMaximum"], True
    if node.get("default") in (None, [], {}, ""):
        node.pop("default", None)
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]
    if "properties" in node:
        node["properties"] = {k: _rewrite(v, definitions, models) for k, v in node["properties"].items()}
        node.setdefault("type", "object")
    if isinstance(node.get("items"), dict):
        node["items"] = _rewrite(node["items"], definitions, models)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _rewrite(node["additionalProperties"], definitions, models)
        if node["additionalProperties"].get("type") == "string":
            node["additionalProperties"].setdefault("maxLength", 1024)
    return node


_BETWEEN_MESSAGES = " / "
"""In the `message` of several rules that are one in the CRD; the API server says only those of the broken ones."""


def _validations(rules: tuple[Rule, ...]) -> list[Schema]:
    """The rules in the words of the API server; those about the same value are one."""
    together: dict[Fetched | Rule, list[Rule]] = {}
    for rule in rules:
        if rule.cel is not None:
            together.setdefault(rule.about or rule, []).append(rule)
    return [
        _joint_validation(key, group) if isinstance(key, Fetched) else _validation(key)
        for key, group in together.items()
    ]


def _validation(rule: Rule) -> Schema:
    told = {"messageExpression": rule.message_cel} if rule.message_cel else {}
    return {"rule": rule.cel or "", "message": rule.message, **told}


def _joint_validation(about: Fetched, rules: list[Rule]) -> Schema:
    # A macro over a list of one is how CEL without extensions gives a value a name.
    all_hold = " && ".join(f"({rule.cel})" for rule in rules)
    broken = " + ".join(f"(({rule.cel}) ? '' : {json.dumps('; ' + rule.message)})" for rule in rules)
    return {
        "rule": f"[{about.cel}].all({about.name}, {all_hold}) || {about.unless}",
        "message": _BETWEEN_MESSAGES.join(rule.message for rule in rules),
        "messageExpression": f"[{about.cel}].map({about.name}, ({broken}).substring(2))[0]",
    }


def rule_messages(schema: Schema) -> Iterator[str]:
    """What each rule of a schema and of its parts says when it is broken."""
    for validation in schema.get("x-kubernetes-validations", ()):
        yield from validation["message"].split(_BETWEEN_MESSAGES)
    for child in (*schema.get("properties", {}).values(), schema.get("items")):
        if isinstance(child, dict):
            yield from rule_messages(child)


class _Dumper(yaml.SafeDumper):
    """Without anchors: `kubectl explain` and diffs read better."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(crd: Schema) -> str:
    """The file's text."""
    body = yaml.dump(crd, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return f"# Generated from the models in operator/trainyard/api by `make generate`. Do not edit.\n{body}"


def files() -> dict[str, str]:
    """File name to content of everything in `crds/`."""
    definitions = (training_run_crd(), training_schedule_crd(), training_sweep_crd())
    return {f"{GROUP}_{d['spec']['names']['plural']}.yaml": render(d) for d in definitions}


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (folder / name).write_text(text)
