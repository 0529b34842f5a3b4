"""Telling an older schema from a newer one."""

import copy
from typing import Any

import pytest
import yaml

from trainyard.api.compatibility import SCHEMA_ANNOTATION, fields_lacking, schema_digest, schema_of
from trainyard.api.crd import files, training_run_crd, training_schedule_crd


@pytest.fixture
def definition() -> dict[str, Any]:
    return training_run_crd()


def fields(definition: dict[str, Any], *path: str) -> dict[str, Any]:
    """The fields below a path of the schema; `[]` goes into a list."""
    node: Any = schema_of(definition)
    for name in path:
        node = node["items"] if name == "[]" else node["properties"][name]
    found: dict[str, Any] = node["properties"]
    return found


@pytest.mark.parametrize("text", files().values(), ids=files())
def test_each_definition_carries_its_digest(text: str) -> None:
    definition = yaml.load(text, Loader=yaml.CSafeLoader)
    assert definition["metadata"]["annotations"][SCHEMA_ANNOTATION] == schema_digest(definition)


def test_the_two_kinds_have_digests_of_their_own() -> None:
    assert schema_digest(training_run_crd()) != schema_digest(training_schedule_crd())


def test_a_digest_changes_with_a_field_a_bound_and_a_rule(definition: dict[str, Any]) -> None:
    before, changed = schema_digest(definition), []
    for change in ("field", "bound", "rule"):
        other = copy.deepcopy(definition)
        match change:
            case "field":
                del fields(other, "spec")["suspend"]
            case "bound":
                fields(other, "spec")["backoffLimit"]["maximum"] = 5
            case "rule":
                fields(other)["spec"]["x-kubernetes-validations"].pop()
        changed.append(schema_digest(other))
    assert len({before, *changed}) == 4


def test_a_digest_does_not_change_with_what_is_told_or_shown(definition: dict[str, Any]) -> None:
    other = copy.deepcopy(definition)
    fields(other, "spec")["suspend"]["description"] = "another sentence"
    other["spec"]["versions"][0]["additionalPrinterColumns"] = []
    assert schema_digest(other) == schema_digest(definition)


def test_a_field_that_is_called_description_counts(definition: dict[str, Any]) -> None:
    other = copy.deepcopy(definition)
    fields(other, "spec")["description"] = {"type": "string"}
    assert schema_digest(other) != schema_digest(definition)


def test_the_fields_that_an_older_schema_lacks_are_named(definition: dict[str, Any]) -> None:
    older = copy.deepcopy(definition)
    del fields(older, "spec")["datasetUpload"]
    del fields(older, "spec", "datasets", "[]")["deduplicate"]
    del fields(older, "status", "trainerStatus")["step"]
    lacking = list(fields_lacking(schema_of(definition), schema_of(older)))
    assert lacking == ["spec.datasets[].deduplicate", "spec.datasetUpload", "status.trainerStatus.step"]
    assert not list(fields_lacking(schema_of(older), schema_of(definition)))


def test_what_is_kept_unread_lacks_nothing(definition: dict[str, Any]) -> None:
    opaque = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert not list(
        fields_lacking(
            schema_of(definition),
            {"properties": {"spec": opaque, "status": opaque, "metadata": {}, "kind": {}, "apiVersion": {}}},
        )
    )
