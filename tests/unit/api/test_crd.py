"""The CRD's own form. Whether the API server takes it is tests/api's business."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import ROOT
from trainyard.api.crd import PRINTER_COLUMNS, files, training_run_crd

SCHEMA = training_run_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


FIELDS = [(path, node) for path, node in nodes(SCHEMA) if path.startswith((".spec", ".status"))]


def test_the_files_in_the_repository_are_those_of_the_models() -> None:
    for name, text in files().items():
        for folder in ("crds", "charts/trainyard/files/crds"):
            assert (ROOT / folder / name).read_text() == text, f"{folder}/{name} is stale: run `make generate`"


@pytest.mark.parametrize("path", [path for path, node in FIELDS if not path.endswith("[]")])
def test_every_field_is_described(path: str) -> None:
    assert dict(FIELDS)[path].get("description"), f"{path} has no description"


@pytest.mark.parametrize(("path", "node"), [(p, n) for p, n in FIELDS if n.get("type") == "array"])
def test_every_list_is_bounded(path: str, node: dict[str, Any]) -> None:
    assert "maxItems" in node, f"{path} needs maxItems, or CEL cannot estimate what its rules cost"


@pytest.mark.parametrize(
    ("path", "node"), [(p, n) for p, n in FIELDS if n.get("type") == "string" and p.startswith(".spec")]
)
def test_every_text_is_bounded(path: str, node: dict[str, Any]) -> None:
    assert "maxLength" in node or "enum" in node, f"{path} needs maxLength or enum"


def test_nothing_that_a_structural_schema_forbids() -> None:
    for path, node in nodes(SCHEMA):
        assert not {"$ref", "$defs", "const", "title"} & set(node), path
        # Beside a type, a second pattern may stand there, and nothing that is a type itself.
        assert all(set(also) == {"pattern"} for also in node.get("allOf", ())), path
        assert node.get("additionalProperties") is not False, path


def test_printed_columns_read_fields_that_exist() -> None:
    known = {path for path, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}
    assert {path for _, _, path, _, _ in PRINTER_COLUMNS} <= known


def test_a_new_object_is_not_done_before_the_operator_has_looked() -> None:
    """kstatus takes an object without status for Current; one whose generation nobody has observed is InProgress."""
    assert SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1}
