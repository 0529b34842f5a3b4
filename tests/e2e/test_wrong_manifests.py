"""Whatever is wrong with a manifest is said within seconds, with the field and the way out, and nothing loops.

Each case is measured by itself, so that the seconds in the table are those of one user with one mistake. Afterwards the
whole namespace is watched for a minute: a run that made Jobs over and over would show there.
"""

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e import measure, runs
from tests.e2e.kube import QUOTAS, Kube, Object, namespace_of
from tests.e2e.recording import Recording
from tests.e2e.web import ADDRESS, serving
from tests.e2e.wrong_manifests import AT_APPLY, AT_RUN_TIME, Surroundings, Wrong
from tests.e2e.wrong_manifests_table import write_table
from tests.webserver import Web
from trainyard.controller.kube.resources import JOBS, NAMESPACES, PODS, PVCS, SECRETS, TRAININGRUNS

QUIET_SECONDS = 60.0

pytestmark = pytest.mark.timeout(300)

FILES = {
    "text.txt": b"some text\n" * 100,
    "private/text.txt": b"some text\n" * 100,
    "empty.txt": b"",
    "line-seven.jsonl": b"".join(b'{"text": "fine"}\n' if n != 7 else b'{"text": "not closed\n' for n in range(1, 10)),
    "messages.jsonl": b'{"messages": [{"role": "user", "content": "hello"}]}\n' * 10,
}


@dataclass
class Result:
    """What a user was told, and when."""

    wrong: Wrong
    said: str
    seconds: float
    where: str


@dataclass
class Shop:
    """The namespaces of all cases, and what has come of them so far."""

    namespace: str
    around: Surroundings
    web: Web
    jobs: list[Recording]
    results: list[Result] = field(default_factory=list)

    def namespace_of(self, wrong: Wrong) -> str:
        return self.around.full_namespace if "quota" in wrong.needs else self.namespace

    def jobs_of(self, name: str) -> list[str]:
        mine = re.compile(re.escape(name) + r"-[a-z]+-\d+")
        return [job for recording in self.jobs for job in recording.created() if mine.fullmatch(job)]


@pytest.fixture(scope="module")
def shop(kube: Kube, wide_space: str) -> Iterator[Shop]:
    full = f"{wide_space}-full"
    namespace_of(kube, full, labels={"trainyard.dev/test": "e2e"})
    kube.create(QUOTAS, full, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kube.create(PVCS, wide_space, {"metadata": {"name": "samples"}, "spec": claim})
    with (
        serving(FILES) as web,
        Recording(kube, JOBS, wide_space) as jobs,
        Recording(kube, JOBS, full) as full_jobs,
    ):
        around = Surroundings(web=web.url, closed=f"http://{ADDRESS}:{unused_port()}", full_namespace=full)
        made = Shop(wide_space, around, web, [jobs, full_jobs])
        yield made
    write_table([(r.wrong.title, r.where, r.said, r.seconds) for r in made.results])
    kube.delete(NAMESPACES, None, full)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("wrong", AT_APPLY, ids=lambda w: w.name)
def test_refused_by_the_api_server(kube: Kube, shop: Shop, wrong: Wrong) -> None:
    begun = time.monotonic()
    answer = kube.try_create(TRAININGRUNS, shop.namespace, wrong.build(wrong.name, shop.around))
    took = time.monotonic() - begun
    assert not answer.accepted, "this manifest was accepted"
    shop.results.append(Result(wrong, answer.message, took, "at apply"))
    for word in wrong.words:
        assert word in answer.message


@pytest.mark.parametrize("wrong", AT_RUN_TIME, ids=lambda w: w.name)
def test_told_within_seconds(kube: Kube, shop: Shop, wrong: Wrong) -> None:
    namespace, name = shop.namespace_of(wrong), wrong.name[:50].strip("-")
    stalled = wrong.ends in ("Failed", "Stalled")
    begun = time.monotonic()
    runs.apply(kube, namespace, wrong.build(name, shop.around))

    def told(run: Object | None) -> bool:
        ready = runs.condition(run, "Ready")
        if runs.finished(run):
            return True
        return ready is not None and ready["reason"] == wrong.reason and runs.has(run, "Stalled") == stalled

    run = kube.wait(TRAININGRUNS, namespace, name, told, seconds=wrong.seconds, what=f"the reason {wrong.reason}")
    took = time.monotonic() - begun
    assert run is not None
    ready = runs.condition(run, "Ready")
    assert ready is not None
    message = runs.message(run)
    shop.results.append(Result(wrong, message, took, wrong.ends))
    assert ready["reason"] == wrong.reason, message
    assert ready["message"] == message
    assert runs.has(run, "Failed") == (wrong.ends == "Failed")
    assert runs.has(run, "Stalled") == stalled
    assert runs.has(run, "Reconciling") == (wrong.ends == "Waiting")
    for word in wrong.words:
        assert word in message
    if wrong.ends == "Failed":
        failure = run["status"]["failure"]
        assert failure["reason"] == wrong.reason
        assert failure["step"] in ("prepare", "train")


def test_none_of_them_makes_job_after_job(kube: Kube, shop: Shop) -> None:
    cases = [w for w in AT_RUN_TIME if any(r.wrong is w for r in shop.results)]
    before = {w.name: shop.jobs_of(w.name) for w in cases}
    quiet_until = time.monotonic() + QUIET_SECONDS
    for _ in kube.watch(PODS, shop.namespace, seconds=QUIET_SECONDS):
        pass
    assert time.monotonic() >= quiet_until - 1
    for wrong in cases:
        assert len(before[wrong.name]) <= wrong.jobs, f"{wrong.title}: {before[wrong.name]}"
        assert shop.jobs_of(wrong.name) == before[wrong.name], f"{wrong.title} makes Job after Job"
    measure.record(
        "wrong-manifests",
        at_apply=sum(r.where == "at apply" for r in shop.results),
        at_run_time=sum(r.where != "at apply" for r in shop.results),
        seconds=measure.spread([r.seconds for r in shop.results if r.where != "at apply"]),
        slowest=[(r.wrong.title, round(r.seconds, 1)) for r in sorted(shop.results, key=lambda r: -r.seconds)[:3]],
        jobs_in_the_minute_after=0,
    )


def test_a_secret_that_comes_later_is_enough(kube: Kube, shop: Shop) -> None:
    """A stalled run goes on by itself once the missing thing is there."""
    name = "late-secret"
    private = {"name": "corpus", "storageUri": f"{shop.web.url}/text.txt", "secretRef": {"name": "late"}}
    runs.apply(kube, shop.namespace, runs.tiny(name, datasets=[private], mode="DryRun"))
    runs.until(kube, shop.namespace, name, lambda r: runs.has(r, "Stalled"), seconds=30, what="Stalled")
    kube.create(SECRETS, shop.namespace, {"metadata": {"name": "late"}, "stringData": {"token": "x"}})
    run = runs.until(kube, shop.namespace, name, lambda r: bool(runs.attempts(r, "validate")), seconds=60, what="a Job")
    assert not runs.has(run, "Stalled")
    kube.delete(TRAININGRUNS, shop.namespace, name)
