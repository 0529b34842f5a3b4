"""Deployments that are down for a run come back, over a whole API: what is asked, when, and what is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.controller.fake_clock import FakeClock
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.runs.test_yielding import ME, OTHER, a_run, deployment
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.errors import Forbidden, Request
from trainyard.controller.loop.give_back import LOOK_SECONDS, GiveBack
from trainyard.controller.runs.yielding import Note


def put(kube: FakeKube, *holders: Any) -> None:
    kube.put("deployments", deployment(0, note=Note(2, holders)))


def put_run(kube: FakeKube, **state: Any) -> None:
    run = a_run(**state)
    kube.put("trainingruns", run | {"metadata": {**run["metadata"], "name": "tiny", "namespace": "lab"}})


def replicas(kube: FakeKube) -> int:
    return int(kube.objects["deployments"]["lab", "ollama"]["spec"]["replicas"])


async def test_it_is_given_back_when_the_run_is_over(kube: FakeKube, cluster: Cluster) -> None:
    put(kube, ME)
    put_run(kube)
    looker = GiveBack(cluster=cluster, clock=FakeClock())
    assert (await looker.once(), replicas(kube), kube.writes()) == (1, 0, [])
    put_run(kube, train="Succeeded", state="Evaluating")
    assert (await looker.once(), replicas(kube)) == (0, 2)
    metadata = kube.objects["deployments"]["lab", "ollama"]["metadata"]
    assert (metadata["labels"], metadata["annotations"]) == ({}, {})
    assert (await looker.once(), kube.writes()) == (0, ["PATCH deployments"])


async def test_a_run_that_is_gone_needs_nothing(kube: FakeKube, cluster: Cluster) -> None:
    put(kube, OTHER, ME)
    put_run(kube)
    assert await GiveBack(cluster=cluster, clock=FakeClock()).once() == 1
    assert Note.on(kube.objects["deployments"]["lab", "ollama"]) == Note(2, (ME,)), "the one that is gone is left out"
    kube.remove("trainingruns", "lab", "tiny")
    assert (await GiveBack(cluster=cluster, clock=FakeClock()).once(), replicas(kube)) == (0, 2)


async def test_somebody_writes_it_meanwhile(kube: FakeKube, cluster: Cluster) -> None:
    put(kube, ME)
    looker = GiveBack(cluster=cluster, clock=FakeClock())
    kept = cluster.get

    async def slow(*asked: Any, **how: Any) -> Any:
        put(kube, ME, OTHER)
        return await kept(*asked, **how)

    cluster.get = slow  # type: ignore[method-assign]
    assert (await looker.once(), replicas(kube)) == (1, 0)
    cluster.get = kept  # type: ignore[method-assign]
    assert (await looker.once(), replicas(kube)) == (0, 2)


async def test_what_could_not_be_found_again_is_not_taken(kube: FakeKube, cluster: Cluster) -> None:
    kept = cluster.list

    async def forbidden(*asked: Any, **how: Any) -> Any:
        raise Forbidden("no", request=Request("list", "deployments"), status=403)

    cluster.list = forbidden  # type: ignore[method-assign]
    with pytest.raises(Forbidden):
        async with GiveBack(cluster=cluster, clock=FakeClock()).taking():
            pytest.fail("it was taken")
    cluster.list = kept  # type: ignore[method-assign]


async def test_nothing_is_asked_while_nothing_is_down(kube: FakeKube, cluster: Cluster) -> None:
    clock = FakeClock()
    looker = GiveBack(cluster=cluster, clock=clock)
    task = asyncio.create_task(looker.run())
    try:
        await clock.advance(600)
        await asyncio.sleep(0.1)
        assert kube.requests == ["GET deployments"], "one look, at the start"
        async with looker.taking():
            await clock.advance(LOOK_SECONDS)
            await asyncio.sleep(0.1)  # whoever looks too early sees nothing
            put(kube, ME)
            put_run(kube)
        put_run(kube, train="Succeeded")
        for _ in range(100):
            await clock.advance(LOOK_SECONDS)
            await asyncio.sleep(0.02)
            if replicas(kube) == 2:
                break
        assert replicas(kube) == 2
    finally:
        task.cancel()
