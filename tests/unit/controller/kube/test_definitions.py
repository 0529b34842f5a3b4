"""What the operator finds out about the installed CRDs before it starts."""

import copy
from typing import Any

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import FakeApi, Seen, fake_api, status
from trainyard.api.compatibility import SCHEMA_ANNOTATION
from trainyard.api.crd import training_run_crd, training_schedule_crd, training_sweep_crd
from trainyard.controller.kube import definitions, errors
from trainyard.controller.kube.resources import CRDS

Definition = dict[str, Any]


def served(*installed: Definition, refused: bool = False) -> Any:
    """An API server with these definitions. `refused`: nobody may read them."""
    by_name = {each["metadata"]["name"]: each for each in installed}
    plurals = [{"name": each["spec"]["names"]["plural"]} for each in installed]

    def answer(seen: Seen) -> web.Response:
        if seen.path == "/apis/trainyard.dev/v1alpha1":
            return web.json_response({"resources": plurals})
        assert seen.path.startswith(CRDS.path())
        if refused:
            return status(403, "Forbidden")
        found = by_name.get(seen.path.rpartition("/")[2])
        return web.json_response(found) if found else status(404, "NotFound")

    return answer


def without(*path: str) -> Definition:
    """The runs' definition of an older version, which did not have this field of the spec."""
    older = training_run_crd()
    node = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for name in path[:-1]:
        node = node["properties"][name]
    del node["properties"][path[-1]]
    del older["metadata"]["annotations"][SCHEMA_ANNOTATION]
    return older


async def fault(handler: Any) -> tuple[str | None, list[Seen]]:
    async with fake_api() as api:
        assert isinstance(api, FakeApi)
        api.handler = handler
        cluster = api.cluster()
        try:
            return await definitions.fault(cluster), api.seen
        finally:
            await cluster.close()


async def test_its_own_definitions_are_fine_and_their_schemas_are_not_even_read() -> None:
    found, seen = await fault(served(training_run_crd(), training_schedule_crd(), training_sweep_crd()))
    assert found is None
    reads = [each for each in seen if each.path.startswith(CRDS.path())]
    assert len(reads) == 3
    assert all("PartialObjectMetadata" in each.headers["Accept"] for each in reads)


async def test_a_kind_that_is_not_served_is_named() -> None:
    found, _ = await fault(served(training_run_crd()))
    assert found is not None
    assert found.startswith(
        "the API server does not know trainingschedules.trainyard.dev/v1alpha1; install the CRDs first"
    )


async def test_under_older_definitions_it_says_what_they_lack_and_what_to_do() -> None:
    found, _ = await fault(served(without("placement", "nodeNames"), training_schedule_crd(), training_sweep_crd()))
    assert found is not None
    assert "trainingruns.trainyard.dev is older than this operator: it lacks spec.placement.nodeNames, which" in found
    assert "kubectl apply --server-side -f crds/" in found


async def test_of_many_fields_the_first_are_named() -> None:
    empty = without("suspend")
    empty["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = {}
    found, _ = await fault(served(empty, training_schedule_crd(), training_sweep_crd()))
    assert found is not None
    assert found.count("spec.") == definitions.SHOWN
    assert " and " in found


async def test_a_newer_definition_is_only_told_about(caplog: pytest.LogCaptureFixture) -> None:
    newer = copy.deepcopy(training_run_crd())
    fields = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["novelty"] = {"type": "string"}
    newer["metadata"]["annotations"][SCHEMA_ANNOTATION] = "0123456789abcdef"
    found, _ = await fault(served(newer, training_schedule_crd(), training_sweep_crd()))
    assert found is None
    assert "trainingruns.trainyard.dev is of another version than this operator" in caplog.text


async def test_without_the_right_to_read_them_it_starts() -> None:
    """With rights in some namespaces only, nobody can tell."""
    found, _ = await fault(served(without("suspend"), training_schedule_crd(), training_sweep_crd(), refused=True))
    assert found is None


async def test_an_api_server_that_is_away_is_not_an_old_definition() -> None:
    with pytest.raises(errors.Transient):
        await fault(lambda _: status(503, "ServiceUnavailable"))
