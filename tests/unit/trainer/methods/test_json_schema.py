"""The keywords of JSON schemas that are offered, beside a library that knows all of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from trainyard.api.manifest import InvalidManifest
from trainyard.api.run.reward import KEYWORDS, Reward, is_schema
from trainyard.trainer.methods.json_schema import matches
from trainyard.trainer.methods.rewards import Response, built_in

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 1.0, 2.5, -3, "", "a", "abc", "web-0", [], [1], [1, "a"], [True], [[1]], {}, {"a": 1}, {"a": "x"},
    {"a": 1, "b": [1, 2]}, {"b": []}, {"a": {"a": 1}}, {"c": None},
)  # fmt: skip
SCHEMAS: tuple[Any, ...] = (
    {}, {"type": "object"}, {"type": ["string", "null"]}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"},
    {"type": "array", "items": {"type": "integer"}}, {"minItems": 1, "maxItems": 1}, {"items": False},
    {"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}, {"properties": {"a": False}},
    {"properties": {"a": True}, "additionalProperties": False}, {"additionalProperties": {"type": "array"}},
    {"enum": ["a", 1, None]}, {"enum": [True, [1]]}, {"const": 1}, {"const": True}, {"const": {"a": 1}}, {"const": [True]},
    {"minimum": 1}, {"maximum": 2, "minimum": 0}, {"minLength": 1}, {"maxLength": 2}, {"pattern": "^web-[0-9]$"},
    {"type": "object", "properties": {"a": {"properties": {"a": {"const": 1}}, "required": ["a"]}}, "required": ["a"]},
)  # fmt: skip


def test_values_match_as_the_library_has_it() -> None:
    found = set()
    for schema, value in itertools.product(SCHEMAS, VALUES):
        assert is_schema(schema), schema
        wanted = Draft202012Validator(schema).is_valid(value)
        assert matches(value, schema) is wanted, (schema, value)
        found.add(wanted)
    assert found == {True, False}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/a"},
        {"anyOf": [{}]},
        {"type": "text"},
        {"type": 3},
        {"minimum": "3"},
        {"minLength": True},
        {"pattern": "("},
        {"properties": {"a": {"format": "date"}}},
        {"items": [{}]},
        {"required": [1]},
    ],
)
def test_other_keywords_and_values_are_refused(schema: dict[str, Any]) -> None:
    assert not is_schema(schema)
    with pytest.raises((InvalidManifest, ValueError), match=r"jsonSchema\.schema is a JSON schema with the keywords"):
        Reward.model_validate({"jsonSchema": {"schema": schema}})


def test_depth_and_size_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"items": deep}
    assert not is_schema(deep)
    assert not is_schema({"properties": {str(n): {} for n in range(600)}})
    assert {"type", "properties", "required"} <= set(KEYWORDS)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"verb": "get"}', 1.0),
        ('{"verb": "fly"}', 0.0),
        ('{"verb": "get", "more": 1}', 0.0),
        ("get", 0.0),
        ("[" * 9999, 0.0),
    ],
)
def test_a_response_is_judged(text: str, score: float) -> None:
    schema = {
        "type": "object",
        "properties": {"verb": {"enum": ["get"]}},
        "required": ["verb"],
        "additionalProperties": False,
    }
    name, judge = built_in(Reward.model_validate({"jsonSchema": {"schema": schema}}), field="f")
    assert (name, judge(Response([1], [7], text, ""))) == ("jsonSchema", score)
