"""What the API server checks of a status before it takes it, as far as the CRD asks for it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

CRD = Path(__file__).parents[4] / "crds" / "trainyard.dev_trainingruns.yaml"
DATE_TIME = re.compile(r"\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
}
INT64 = 2**63


@lru_cache
def status_schema() -> dict[str, Any]:
    crd = yaml.safe_load(CRD.read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


def faults(value: Any, schema: dict[str, Any] | None = None, path: str = "status") -> Iterator[str]:
    """Everything for which the API server would refuse the value."""
    schema = schema or status_schema()
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: {value!r:.80} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r:.80} is none of {schema['enum']}"
    if isinstance(value, str):
        yield from _text(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) >= INT64:
            yield f"{path}: {value!r:.80} is no int64"
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{path}: {value!r:.80} is out of range"
    elif isinstance(value, list):
        yield from _items(value, schema, path)
    elif isinstance(value, dict):
        yield from _fields(value, schema, path)


def _text(value: str, schema: dict[str, Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: {len(value)} characters, {schema['maxLength']} are allowed"
    if schema.get("format") == "date-time" and not DATE_TIME.fullmatch(value):
        yield f"{path}: {value!r} is no date-time"
    if any("\ud800" <= c <= "\udfff" for c in value):
        yield f"{path}: half a character"


def _items(value: list[Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} items, {schema['maxItems']} are allowed"
    if keys := schema.get("x-kubernetes-list-map-keys"):
        names = [tuple(item.get(key) for key in keys) for item in value]
        if len(set(names)) < len(names):
            yield f"{path}: two items of the same {keys}"
    for index, item in enumerate(value):
        yield from faults(item, schema["items"], f"{path}[{index}]")


def _fields(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    fields = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name} is missing"
    for name, item in value.items():
        inner = fields.get(name) or schema.get("additionalProperties")
        if inner is None:
            yield f"{path}.{name} is unknown"
        else:
            yield from faults(item, inner, f"{path}.{name}")
