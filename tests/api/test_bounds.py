"""Every field of the spec, from both sides: the API server and `trainyard validate` refuse the same values.

The cases are derived from the generated schema: for each field a value at its bound (accepted) and values beyond it or of
another type (refused). A field that no complete manifest of `manifests.py` uses fails the last test here.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from api.conftest import Runs
from api.manifests import COMPLETE, FINE_TUNING, Place, at, put, run, shown
from trainyard.api.crd import training_run_crd
from trainyard.api.manifest import InvalidManifest, parse_run

pytestmark = pytest.mark.api

SPEC = training_run_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
CHANGES_MEANING: frozenset[Place] = frozenset({("training", "method"), ("datasets", 0, "role")})
"""Fields whose other values are right alone but break a rule between fields; test_rules.py has those."""


def fields(schema: dict[str, Any], place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    for name, node in schema.get("properties", {}).items():
        here = (*place, name)
        yield here, node
        if node.get("type") == "array":
            yield from fields(node["items"], (*here, 0))
        yield from fields(node, here)


FIELDS = list(fields(SPEC))
FREE: frozenset[Place] = frozenset({("podTemplate", "env", 0)})
"""Kubernetes' own types with one field of their own in our schema: other fields pass."""


def home(place: Place) -> dict[str, Any]:
    """A complete spec in which this place is filled."""
    for spec in COMPLETE:
        try:
            at(spec, place)
        except (KeyError, IndexError):
            continue
        return spec
    raise LookupError(f"no complete manifest fills {shown(place)}")


def accepted_values(node: dict[str, Any]) -> Iterator[Any]:
    if "minimum" in node and not node.get("exclusiveMinimum"):
        yield node["minimum"]
    if "maximum" in node and not node.get("exclusiveMaximum"):
        yield node["maximum"]
    yield from node.get("enum", ())
    if node.get("type") == "boolean":
        yield from (True, False)
    if node.get("x-kubernetes-int-or-string"):
        yield from (0, 4, "500m", "1.5Gi", "1e3", "16G")


def refused_values(node: dict[str, Any], current: Any) -> Iterator[Any]:
    kind = node.get("type")
    if "minimum" in node:
        yield node["minimum"] if node.get("exclusiveMinimum") else node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"] if node.get("exclusiveMaximum") else node["maximum"] + 1
    if "enum" in node:
        yield "NoSuchValue"
    if "pattern" in node:
        yield "!no such form"
    if kind == "string" and "maxLength" in node:
        yield "x" * (node["maxLength"] + 1)
    if kind == "string" and node.get("minLength"):
        yield ""
    if "maxItems" in node:
        item = current[0]
        distinct = [
            {**item, "name": f"n{i}"} if isinstance(item, dict) and "name" in item else item
            for i in range(node["maxItems"] + 1)
        ]
        yield distinct
    if node.get("minItems"):
        yield []
    if node.get("x-kubernetes-int-or-string"):
        yield from (1.5, "16GB", "-1", True)
    other_types: dict[Any, tuple[Any, ...]] = {
        "integer": ("5", 5.5, True, []),
        "number": ("0.5", True, {}),
        "boolean": ("true", 1),
        "string": (5, True, ["x"]),
        "array": ({}, "x"),
        "object": ([], "x", 5),
    }
    yield from other_types.get(kind, ())


def related(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def label(case: tuple[Place, Any]) -> str:
    value = str(case[1])
    return f"{shown(case[0])}={value[:20]}{'...' if len(value) > 20 else ''}"


ACCEPTED = [(p, value) for p, node in FIELDS if p not in CHANGES_MEANING for value in accepted_values(node)]
REFUSED = [(p, value) for p, node in FIELDS for value in refused_values(node, at(home(p), p))]


@pytest.mark.parametrize("spec", COMPLETE, ids=["fine-tuning", "scratch", "tokenizer", "script"])
def test_the_complete_manifests_are_accepted(spec: dict[str, Any], runs: Runs) -> None:
    manifest = run(spec)
    parse_run(manifest)
    answer = runs.dry_run(manifest)
    assert answer.accepted, answer.message


@pytest.mark.parametrize("case", ACCEPTED, ids=label)
def test_a_value_at_its_bound_is_accepted(case: tuple[Place, Any], runs: Runs) -> None:
    place, value = case
    manifest = run(put(home(place), place, value))
    parse_run(manifest)
    answer = runs.dry_run(manifest)
    assert answer.accepted, answer.message


@pytest.mark.parametrize("case", REFUSED, ids=label)
def test_a_value_beyond_its_bound_is_refused_by_both(case: tuple[Place, Any], runs: Runs) -> None:
    place, value = case
    manifest = run(put(home(place), place, value))
    answer = runs.dry_run(manifest)
    assert answer.code == 422, f"the API server says {answer.code} {answer.message}"
    assert shown(place) in answer.message
    with pytest.raises(InvalidManifest) as caught:
        parse_run(manifest)
    assert any(related(fault.field, shown(place)) for fault in caught.value.faults), caught.value.faults


@pytest.mark.parametrize("place", sorted({place[:-1] for place, _ in FIELDS} - FREE, key=str), ids=shown)
def test_an_unknown_field_is_refused_by_both_at_every_level(place: Place, runs: Runs) -> None:
    manifest = run(put(home(place), (*place, "noSuchField"), 1))
    answer = runs.dry_run(manifest)
    assert answer.code in (400, 422)
    assert "unknown field" in answer.message
    with pytest.raises(InvalidManifest, match="unknown field"):
        parse_run(manifest)


@pytest.mark.parametrize(("place", "node"), FIELDS, ids=lambda v: shown(v) if isinstance(v, tuple) else "")
def test_null_means_the_same_to_both(place: Place, node: dict[str, Any], runs: Runs) -> None:
    manifest = run(put(home(place), place, None))
    try:
        parse_run(manifest)
        here = True
    except InvalidManifest:
        here = False
    assert here == runs.dry_run(manifest).accepted


def test_every_field_stands_in_a_complete_manifest() -> None:
    for place, _ in FIELDS:
        home(place)
    assert FINE_TUNING
