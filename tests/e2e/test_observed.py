"""A dataset of this cluster itself, built and learned in it by one run: code, runbook, metrics and logs, all of them real.

Faults are planted so that something happens. Prometheus has scraped the cluster meanwhile, Loki has what its programs, pods
and events said, and a git server has this project's code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import ROOT
from tests.e2e import incidents, measure, monitoring, runs
from tests.e2e.kube import Kube, Object
from tests.e2e.volumes import work_folder
from tests.e2e.web import ADDRESS
from tests.servers.git_server import commit, git, serving
from tests.servers.restartable import until
from trainyard.controller.kube.resources import NAMESPACES

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]

SCRAPES = 30
QUERIES = [
    "rate(process_cpu_seconds_total[30s])",
    "process_resident_memory_bytes",
    "go_goroutines",
    "go_threads",
    "process_open_fds",
    "go_memstats_alloc_bytes",
    "scrape_samples_scraped",
    "scrape_duration_seconds",
    "sum by (verb, resource) (rate(apiserver_request_total[30s])) > 0",
    "sum by (kind) (apiserver_storage_objects) > 0",
    "sum by (operation_type) (rate(kubelet_runtime_operations_total[30s])) > 0",
    "kubelet_running_pods",
    "sum by (resource) (apiserver_longrunning_requests) > 0",
    "sum by (request_kind) (apiserver_current_inflight_requests)",
    "rate(etcd_mvcc_put_total[30s])",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_server_proposals_applied_total",
    'sum by (namespace) (rate(container_cpu_usage_seconds_total{namespace!=""}[30s]))',
    'sum by (namespace) (container_memory_working_set_bytes{namespace!=""})',
    "trainyard_runs",
    "rate(trainyard_api_requests_total[30s]) > 0",
    "up",
]
LINES = ['{component=~"kube.*|etcd|containerd|provisioner"}', '{component="pods"}', '{component="events"}']


@dataclass(frozen=True)
class Sources:
    """Addresses of the servers, as pods see them."""

    git: str
    prometheus: str
    loki: str


@pytest.fixture(scope="module")
def sources(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    place = tmp_path_factory.mktemp("observed")
    (place / "git").mkdir()
    git(place, "clone", "--quiet", "--bare", str(ROOT), "git/trainyard.git")
    commit(place / "git" / "runbooks", {"cluster/RUNBOOK.md": incidents.runbook()})
    space = incidents.new_space(kube)
    with monitoring.watched(kube, place) as prometheus, serving(place / "git", host=ADDRESS) as repositories:
        planted = incidents.plant(kube, space, each=1)
        incidents.told(kube, space, planted, seconds=240)
        until(
            lambda: min(monitoring.scraped(prometheus).values(), default=0) >= SCRAPES,
            seconds=SCRAPES * monitoring.SCRAPE_SECONDS * 3,
            what=lambda: f"scrapes that went right: {monitoring.scraped(prometheus)}",
        )
        with monitoring.logging(kube, place) as loki:
            kube.delete(NAMESPACES, None, space)
            yield Sources(repositories.url, prometheus.url, loki.url)


def datasets(sources: Sources) -> list[Object]:
    """All four, up to this moment, so that a second run asks for the same."""
    window = {"days": 1, "until": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    common: Object = {"format": "TRM", "convertTo": "PromptCompletion", "deduplicate": "Near", "split": {"eval": 0.1}}

    def asked(name: str, tasks: dict[str, Any], **source: Object) -> Object:
        return {"name": name, **common, "generate": tasks, **source}

    return [
        asked(
            "code",
            {"tasks": ["CodePurpose", "CodeSignature", "CodeConfigKey", "CodeDependency"], "maxPerTask": 100},
            code={"url": f"{sources.git}/trainyard.git", "include": ["**/*.py", "**/*.yaml"]},
        ),
        asked("runbook", {"tasks": ["RunbookQuestion"]}, runbook={"url": f"{sources.git}/runbooks"}),
        asked(
            "metrics",
            {"maxPerTask": 100},
            prometheus={
                "url": sources.prometheus,
                "queries": QUERIES,
                "window": window,
                "stepSeconds": monitoring.SCRAPE_SECONDS,
                "spanHours": 1,
            },
        ),
        asked("logs", {"maxPerTask": 100}, loki={"url": sources.loki, "queries": LINES, "window": window}),
    ]


def test_a_model_learns_from_the_cluster_it_runs_in(kube: Kube, space: str, sources: Sources) -> None:
    asked = datasets(sources)
    model = json.loads(json.dumps(runs.MODEL))
    model["scratch"]["config"]["max_position_embeddings"] = 512
    training = {"method": "SFT", "maxSteps": 80, "maxLength": 512, "learningRate": 3e-3}
    runs.apply(kube, space, runs.tiny("taught", model=model, datasets=asked, training=training))
    again = runs.tiny("again", mode="Dataset", datasets=asked, model=None)
    del again["spec"]["training"]
    runs.apply(kube, space, again)
    run = runs.until_succeeded(kube, space, "taught", seconds=600)

    dataset = run["status"]["dataset"]
    manifest = json.loads((work_folder(kube, run) / "dataset" / "manifest.json").read_text())
    assert manifest["digest"] == dataset["digest"]
    assert {s["name"]: s["records"] > 10 for s in dataset["sources"]} == dict.fromkeys(
        ("code", "runbook", "metrics", "logs"), True
    )
    second = runs.until_succeeded(kube, space, "again", seconds=200)
    assert second["status"]["dataset"]["digest"] == dataset["digest"], "the same stretch of the past, asked for twice"

    after, before = runs.evaluated(run), runs.evaluated(run, "baseline")
    assert after["tokens"] == before["tokens"], "the same held-out records"
    assert after["loss"] < 0.8 * before["loss"]
    log = kube.log(space, runs.pods(kube, space, "taught", step="prepare")[0]["metadata"]["name"])
    measure.record(
        "observed", dataset=dataset, after=after, before=before, statistics=manifest["statistics"], log=log.splitlines()
    )
