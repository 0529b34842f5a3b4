"""Every field of every spec, from both sides: the API server and `trainyard validate` refuse the same values.

The cases are derived from the generated schemas: for each field a value at its bound (accepted) and values beyond it or
of another type (refused). A field that no complete manifest of `manifests.py` fills fails here by name.
"""

from typing import Any

import pytest

from tests.api.conftest import Objects
from tests.api.fields import RUN, SCHEDULE, SWEEP, Kind, accepted_values, refused_values
from tests.api.places import Place, at, put, shown
from trainyard.api.manifest import InvalidManifest

pytestmark = pytest.mark.api

KINDS = (RUN, SCHEDULE, SWEEP)
Case = tuple[Kind, Place, Any]


def label(case: Case) -> str:
    kind, place, value = case
    text = str(value)
    return f"{kind.fixture}:{shown(place)}={text[:20]}{'...' if len(text) > 20 else ''}"


def related(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


FIELDS = [(kind, place, node) for kind in KINDS for place, node in kind.fields()]
ACCEPTED = [(k, p, value) for k, p, node in FIELDS if p not in k.changes_meaning for value in accepted_values(node)]
REFUSED = [(k, p, value) for k, p, node in FIELDS for value in refused_values(node, at(k.home(p), p))]
MAPPINGS = sorted({(k.fixture, p[:-1]) for k, p, _ in FIELDS if p[:-1] not in k.free}, key=str)


@pytest.fixture
def objects(request: pytest.FixtureRequest) -> Objects:
    """The API server's side of the kind that the case is about."""
    case = request.node.callspec.params["case"]
    fixture = case[0] if isinstance(case[0], str) else case[0].fixture
    found: Objects = request.getfixturevalue(fixture)
    return found


@pytest.mark.parametrize(
    "case",
    [(k, (), spec) for k in KINDS for spec in k.complete],
    ids=lambda c: f"{c[0].fixture}{c[0].complete.index(c[2])}",
)
def test_the_complete_manifests_are_accepted(case: Case, objects: Objects) -> None:
    kind, _, spec = case
    kind.parse(kind.manifest(spec))
    answer = objects.dry_run(kind.manifest(spec))
    assert answer.accepted, answer.message


@pytest.mark.parametrize("case", ACCEPTED, ids=label)
def test_a_value_at_its_bound_is_accepted(case: Case, objects: Objects) -> None:
    kind, place, value = case
    manifest = kind.manifest(put(kind.home(place), place, value))
    kind.parse(manifest)
    answer = objects.dry_run(manifest)
    assert answer.accepted, answer.message


@pytest.mark.parametrize("case", REFUSED, ids=label)
def test_a_value_beyond_its_bound_is_refused_by_both(case: Case, objects: Objects) -> None:
    kind, place, value = case
    manifest = kind.manifest(put(kind.home(place), place, value))
    answer = objects.dry_run(manifest)
    assert answer.code == 422, f"the API server says {answer.code} {answer.message}"
    assert shown(place) in answer.message
    with pytest.raises(InvalidManifest) as caught:
        kind.parse(manifest)
    assert any(related(fault.field, shown(place)) for fault in caught.value.faults), caught.value.faults


@pytest.mark.parametrize("case", MAPPINGS, ids=lambda c: f"{c[0]}:{shown(c[1])}")
def test_an_unknown_field_is_refused_by_both_at_every_level(case: tuple[str, Place], objects: Objects) -> None:
    fixture, place = case
    kind = next(k for k in KINDS if k.fixture == fixture)
    manifest = kind.manifest(put(kind.home(place), (*place, "noSuchField"), 1))
    answer = objects.dry_run(manifest)
    assert answer.code in (400, 422)
    assert "unknown field" in answer.message
    with pytest.raises(InvalidManifest, match="unknown field"):
        kind.parse(manifest)


@pytest.mark.parametrize("case", FIELDS, ids=lambda c: f"{c[0].fixture}:{shown(c[1])}")
def test_null_means_the_same_to_both(case: Case, objects: Objects) -> None:
    kind, place, _ = case
    manifest = kind.manifest(put(kind.home(place), place, None))
    try:
        kind.parse(manifest)
        here = True
    except InvalidManifest:
        here = False
    answer = objects.dry_run(manifest)
    assert here == answer.accepted, answer.message
