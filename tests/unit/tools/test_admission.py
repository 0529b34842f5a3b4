"""Where a run names Secrets, as the admission policies are made of it. Whether they judge it is tested in tests/api."""

import re

import pytest

import admission
from tests.api.manifests import COMPLETE, run
from trainyard.api.crd import structural
from trainyard.api.manifest import parse_run
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.api.schedule.trainingschedule import TrainingScheduleSpec
from trainyard.controller.manifests.job import referenced_secrets
from trainyard.controller.manifests.metadata import RunRef


def test_references_are_found_at_every_depth() -> None:
    schema = {
        "properties": {
            "a": {"properties": {"secretRef": {"properties": {"name": {}}}}},
            "list": {"type": "array", "items": {"properties": {"b": {"properties": {"secretRef": {}}}}}},
            "other": {"properties": {"name": {}}},
        }
    }
    assert list(admission.references(schema)) == [("a", "secretRef", "name"), ("list", "[]", "b", "secretRef", "name")]


def test_each_reference_of_the_schemas_has_its_place() -> None:
    text = admission.outputs()["secrets.cel"]
    found = list(admission.references(structural(TrainingRunSpec)))
    found += [p for p in admission.references(structural(TrainingScheduleSpec)) if p[0] == "triggers"]
    assert len(found) >= 10
    for path in found:
        steps = [f"m.?{field}.orValue('')" for field in path if field != admission.ITEMS]
        assert any(all(step in line for step in steps) for line in text.splitlines()), path


@pytest.mark.parametrize("spec", COMPLETE, ids=range(len(COMPLETE)))
def test_what_the_operator_mounts_is_named_at_a_place_that_is_judged(spec: dict[str, object]) -> None:
    manifest = run(spec)
    manifest["metadata"] |= {"namespace": "a", "uid": "b"}
    parsed = parse_run(manifest)
    known = {
        ".".join(p for p in path if p != admission.ITEMS) for path in admission.references(structural(TrainingRunSpec))
    }
    for field in referenced_secrets(RunRef.of(manifest, parsed)).values():
        assert re.sub(r"\[[^]]*\]", "", field).removeprefix("spec.") in known


def test_a_value_of_another_type_is_passed_over() -> None:
    """Each step asks for the type first, because an error of CEL's would refuse the object in words that help nobody."""
    for text in admission.outputs().values():
        assert text.count(".?") == text.count("type(m) == map, m.?")
