"""Reading TrainingRuns, TrainingSchedules and TrainingSweeps from YAML or JSON, with faults that name the field, the value and the way out.

kubectl reads YAML 1.2-style numbers, so `learningRate: 1e-4` is a number to the API server; PyYAML's own resolver takes
it for a string. The loader here follows kubectl, keeps the line of every key, and turns pydantic's errors into messages
of the form `spec.training.maxSteps (line 12): -5 is not allowed: must be at least 1`.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from trainyard.api import API_VERSION
from trainyard.api.addresses import told
from trainyard.api.places import did_you_mean
from trainyard.api.run.trainingrun import TrainingRun

if TYPE_CHECKING:
    from trainyard.api.schedule.trainingschedule import TrainingSchedule
    from trainyard.api.sweep.trainingsweep import TrainingSweep

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a manifest."""

    field: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.field} (line {self.line})" if self.line else self.field
        return f"{where}: {self.message}"


class InvalidManifest(ValueError):
    """A manifest that cannot be a TrainingRun; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2's core schema, and without its silence about keys that stand twice."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | int:
        """On its way to the API server a manifest becomes JSON, where 1e3 and 1000 are the same number."""
        value = float(super().construct_yaml_float(node))
        return int(value) if value.is_integer() and abs(value) < 2**53 else value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises MarkedYAMLError at the second of two equal keys; the first would be lost without a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice in the same place; keep one of them"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)

_NOT_AS_IN_KUBECTL = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_AS_IN_KUBECTL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Integers without YAML 1.1's base 60: the ratio 1:30 is a text, not 90.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, and the line on which each path begins."""

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of the path, or of the nearest parent that is written down."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_documents(text: str) -> list[Document]:
    """All non-empty documents of a YAML text. Raises InvalidManifest with the line where the YAML breaks."""
    documents: list[Document] = []
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidManifest(
            [Fault("YAML", f"the character U+{int(error.character):04X} is not allowed in YAML", line)]
        ) from error
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node) if node is not None else None
            if node is not None and value is not None:
                documents.append(Document(value, dict(_lines(node, (), set()))))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidManifest([Fault("YAML", str(error.problem), mark.line + 1 if mark else None)]) from error
    finally:
        loader.dispose()
    return documents


def _lines(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[tuple[Path, int]]:
    """The line of every path. What an alias repeats is listed once: it may stand for itself, and without end."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(value, (*path, key.value), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index), seen)


def parse_run(value: Any, *, document: Document | None = None) -> TrainingRun:
    """The manifest as a model.

    Raises:
        InvalidManifest: with one fault for everything that is wrong.
    """
    return _parse(TrainingRun, value, document)


def parse_schedule(value: Any, *, document: Document | None = None) -> "TrainingSchedule":
    """The same for a TrainingSchedule. Cron fields, time zones and variants are checked by the operator's own code."""
    from trainyard.api.schedule.trainingschedule import TrainingSchedule

    return _parse(TrainingSchedule, value, document)


def parse_sweep(value: Any, *, document: Document | None = None) -> "TrainingSweep":
    """The same for a TrainingSweep. Where its parameters lead is checked by `api/sweep/validity.py`."""
    from trainyard.api.sweep.trainingsweep import TrainingSweep

    return _parse(TrainingSweep, value, document)


def _parse(model: type[M], value: Any, document: Document | None) -> M:
    kind = model.__name__
    if not isinstance(value, Mapping):
        raise InvalidManifest(
            [
                Fault(
                    "manifest",
                    f"expected a mapping with apiVersion, kind, metadata and spec, found {type(value).__name__}",
                )
            ]
        )
    if value.get("kind") != kind or value.get("apiVersion") != API_VERSION:
        found = f"{value.get('apiVersion')} {value.get('kind')}"
        raise InvalidManifest([Fault("kind", f"expected apiVersion {API_VERSION} and kind {kind}, found {found}")])
    try:
        return model.model_validate(value, by_alias=True, by_name=False)  # names as the API server knows them
    except ValidationError as error:
        raise InvalidManifest(list(_faults(error, value, document, model))) from error


def read_run(text: str) -> TrainingRun:
    """The only TrainingRun of a YAML text; other kinds beside it (a Namespace, a Secret) are passed over."""
    runs = [d for d in read_documents(text) if isinstance(d.value, Mapping) and d.value.get("kind") == "TrainingRun"]
    if len(runs) != 1:
        raise InvalidManifest(
            [Fault("manifest", f"expected one TrainingRun in the file, found {len(runs)}; give each a file of its own")]
        )
    return parse_run(runs[0].value, document=runs[0])


def _faults(error: ValidationError, value: Any, document: Document | None, root: type[BaseModel]) -> Iterator[Fault]:
    seen: set[tuple[str, str]] = set()
    for detail in error.errors(include_url=False):
        path = _real_path(detail["loc"], value)
        field = render_path(path) or "manifest"
        for message in _messages(detail, path, root):
            # The branches of a union (a quantity is a number or a text) fail one by one; people read it once.
            if (field, message) not in seen:
                seen.add((field, message))
                yield Fault(field, told(message), document.line(path) if document else None)


def _real_path(loc: tuple[str | int, ...], value: Any) -> Path:
    """Pydantic's location without the branch names of unions, which do not stand in the manifest."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(value, Mapping):
            path.append(part)
            value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            path.append(part)
            value = value[part] if part < len(value) else None
    return tuple(path)


def render_path(path: Path) -> str:
    """`('spec', 'datasets', 0, 'name')` as `spec.datasets[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _messages(detail: Any, path: Path, root: type[BaseModel]) -> list[str]:
    if detail["type"] == "rule":
        return list(detail["ctx"]["messages"])
    if str(detail["loc"][-1]).startswith(_QUANTITY_BRANCHES):
        return [f"{detail['input']!r} is not a quantity: write 4, 500m, 1.5Gi or the like"]
    return [_message(detail, path, root)]


_QUANTITY_BRANCHES = ("constrained-int", "constrained-str")
"""How pydantic calls the two halves of `Quantity`, the only union of plain types."""


def _message(detail: Any, path: Path, root: type[BaseModel]) -> str:
    given, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_field(path, root)
        case "missing":
            return "is required"
        case "greater_than_equal":
            return f"{given} is not allowed: must be at least {_plain(context['ge'])}"
        case "greater_than":
            return f"{given} is not allowed: must be greater than {_plain(context['gt'])}"
        case "less_than_equal":
            return f"{given} is not allowed: must be at most {_plain(context['le'])}"
        case "less_than":
            return f"{given} is not allowed: must be less than {_plain(context['lt'])}"
        case "literal_error":
            options = str(context.get("expected", "")).replace("'", "")
            close = difflib.get_close_matches(str(given), re.split(r", | or ", options), n=1, cutoff=0.5)
            return f"{given!r} is not one of {options}" + (f"; did you mean {close[0]}?" if close else "")
        case "too_short" if not given:
            return f"is empty: give at least {context['min_length']}, or leave the field out if it need not be there"
        case "too_long" if "max_length" in context and "actual_length" in context:
            return f"has {context['actual_length']} entries: must be at most {context['max_length']}"
        case "string_pattern_mismatch":
            return f"{given!r} does not have the form it needs ({_describe(path, root) or context['pattern']})"
        case "int_type" | "float_type" | "bool_type" | "string_type" | "list_type" | "dict_type" | "model_type" as kind:
            return _wrong_type(kind.removesuffix("_type"), given)
        case _:
            shown = "" if isinstance(given, Mapping | list) else f"{given!r}: "
            return f"{shown}{detail['msg'][0].lower()}{detail['msg'][1:]}"


def _unknown_field(path: Path, root: type[BaseModel]) -> str:
    """A name that is nearly one of this object's, one that stands somewhere else, or what there is."""
    name = str(path[-1]) if path else ""
    known = _known_fields(path[:-1], root)
    elsewhere = did_you_mean(name, path[:-1], root)
    moved = elsewhere.rpartition(".")[2] == name
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close and not moved:
        return f"unknown field; did you mean {close[0]}?"
    if elsewhere:
        return f"unknown field here; did you mean {elsewhere}?"
    return f"unknown field; known are {', '.join(known)}"


def _plain(bound: float) -> float:
    return int(bound) if float(bound).is_integer() else bound


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
}


def _wrong_type(expected: str, given: Any) -> str:
    message = f"{given!r} is not allowed: must be {_KINDS[expected]}"
    if expected in ("int", "float", "bool") and isinstance(given, str):
        return f"{message}, without quotes"
    if expected == "string" and isinstance(given, int | float):
        return f"{message}; write it in quotes"
    return message


def _model_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    """The pydantic model behind a path, following optional and list types."""
    model: type[BaseModel] | None = root
    for part in path:
        if model is None or isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias, to_camel(n))), None)
        model = _inner_model(field.annotation) if field else None
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in get_args(annotation) if (m := _inner_model(a))), None)


def _known_fields(path: Path, root: type[BaseModel]) -> list[str]:
    model = _model_at(path, root)
    return sorted(f.alias or to_camel(n) for n, f in model.model_fields.items()) if model else []


def _describe(path: Path, root: type[BaseModel]) -> str:
    model = _model_at(path[:-1], root)
    if model is None or not path:
        return ""
    field = next((f for n, f in model.model_fields.items() if path[-1] in (n, f.alias, to_camel(n))), None)
    return field.description or "" if field else ""
