"""What a run names that its author must be allowed to read, as CEL for the chart's admission policies.

The operator acts for the author of a run, so the chart asks the API server whether that author may read each Secret and
ConfigMap himself. Where they are named follows from the models: every `secretRef` of the schema, wherever it stands, and
the places of a pod that Kubernetes defines. A new field that names a Secret is judged as soon as it exists.

Each expression is a list of texts `name:field`. A schedule's patches are free mappings, so a value of another type than
expected is passed over: no run can be made of it.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

from trainyard.api.crd import structural
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.schedule.trainingschedule import TrainingScheduleSpec

Schema = dict[str, Any]
Path = tuple[str, ...]

ITEMS, ANY = "[]", "*"
REFERENCE = "secretRef"

POD_SECRETS = (
    "env.[].valueFrom.secretKeyRef.name",
    "envFrom.[].secretRef.name",
    "initContainers.[].env.[].valueFrom.secretKeyRef.name",
    "initContainers.[].envFrom.[].secretRef.name",
    "imagePullSecrets.[].name",
    "volumes.[].*.secretName",
    "volumes.[].*.secretRef.name",
    "volumes.[].*.nodePublishSecretRef.name",
    "volumes.[].projected.sources.[].secret.name",
)
POD_CONFIG_MAPS = (
    "env.[].valueFrom.configMapKeyRef.name",
    "envFrom.[].configMapRef.name",
    "initContainers.[].env.[].valueFrom.configMapKeyRef.name",
    "initContainers.[].envFrom.[].configMapRef.name",
    "volumes.[].configMap.name",
    "volumes.[].projected.sources.[].configMap.name",
)

WRITTEN = {
    "written-configmaps.cel": "exports.[].configMap.name",
    "restarted-deployments.cel": "exports.[].configMap.rolloutRestart.deployment",
    "written-inferenceservices.cel": "exports.[].kserve.inferenceService",
}
"""What the operator changes for an export."""
YIELDING = "placement.yieldFrom.[].namespace/deployment"
"""What it scales down for a training. A field `a/b` is the texts of both, with a slash between them; a may be missing."""


def outputs() -> dict[str, str]:
    """File name to content."""
    in_runs = [*references(structural(TrainingRunSpec)), *_of_pods(POD_SECRETS)]
    of_triggers = [path for path in references(structural(TrainingScheduleSpec)) if path[0] == "triggers"]
    secrets = [
        *(_places("variables.specs", path) for path in in_runs),
        *(_places("variables.schedules", path) for path in of_triggers),
    ]
    config_maps = [_places("variables.specs", path) for path in _of_pods(POD_CONFIG_MAPS)]
    accounts = [_places("variables.specs", path) for path in _of_pods(("serviceAccountName",))]
    return {
        "secrets.cel": _list(secrets),
        "configmaps.cel": _list(config_maps),
        "serviceaccounts.cel": _list(accounts),
        "yielding-deployments.cel": _list([_places("variables.specs", tuple(YIELDING.split(".")))]),
        **{file: _list([_places("variables.specs", tuple(path.split(".")))]) for file, path in WRITTEN.items()},
    }


def references(schema: Schema, at: Path = ()) -> Iterator[Path]:
    """Path of each name in a `secretRef` of the schema."""
    for name, node in schema.get("properties", {}).items():
        if name == REFERENCE:
            yield (*at, name, "name")
        elif node.get("type") == "array":
            yield from references(node["items"], (*at, name, ITEMS))
        else:
            yield from references(node, (*at, name))


def _of_pods(places: tuple[str, ...]) -> list[Path]:
    return [("podTemplate", *place.split(".")) for place in places]


def _list(expressions: list[str]) -> str:
    lines = ",\n".join(f"  {expression}" for expression in expressions)
    return f"// Generated from the models by `make generate`. Do not edit.\n[\n{lines}\n].join(' ').split(' ').filter(e, e != '')\n"


def _places(roots: str, path: Path) -> str:
    """CEL: `name:field` of every place at this path, with blanks between them."""
    return f"{roots}.map(s, {_below('[s.is]', path, 's.at', count())}).join(' ')"


def _below(nodes: str, path: Path, label: str, numbers: Iterator[int]) -> str:
    """CEL: the same below a list of at most one node. `label` is a CEL expression too, for the name of the node's field."""
    field, *rest = path
    if "/" in field:
        first, last = field.split("/")
        before, text = (
            f"{nodes}.map(m, type(m) == map, m.?{name}.orValue('')).filter(n, type(n) == string).join('')"
            for name in (first, last)
        )
        return f"{nodes}.map(n, {text} != '', {before} + '/' + {text} + ':' + {_then(label, f'.{last}')}).join(' ')"
    if field not in (ITEMS, ANY):
        nodes, label = f"{nodes}.map(m, type(m) == map, m.?{field}.orValue(''))", _then(label, f".{field}")
        if rest:
            return _below(nodes, tuple(rest), label, numbers)
        return f"{nodes}.map(n, type(n) == string && n != '', n + ':' + {label}).join(' ')"
    item = f"x{next(numbers)}"
    if field == ANY:
        inner = _below(f"[m[{item}]]", tuple(rest), f"{_then(label, '.')} + {item}", numbers)
        return f"{nodes}.map(m, type(m) == map, m.map({item}, {inner}).join(' ')).join(' ')"
    name = f"[{item}].map(m, type(m) == map, m.?name.orValue('')).filter(n, type(n) == string).join('')"
    inner = _below(f"[{item}]", tuple(rest), f"{_then(label, '[')} + {name} + ']'", numbers)
    return f"{nodes}.map(l, type(l) == list, l.map({item}, {inner}).join(' ')).join(' ')"


def _then(label: str, text: str) -> str:
    """The label with a text after it."""
    return f"{label[:-1]}{text}'" if label.endswith("'") else f"{label} + '{text}'"
