"""A burst of TrainingRuns: how long until each one's first Job exists, what it costs, and whether it is quiet afterwards.

    python benchmarks/burst.py --runs 1000 --metrics http://127.0.0.1:18090/metrics

The runs carry a queue label that nobody admits, so their Jobs stay suspended and no pod is made: what is measured is the
operator and the API server. With `--held-by scheduler` they have no queue, but want a node that is not there: each also gets
its Secret and its claim first, and a pod that waits.

A Job's time is when a watch of this process saw it. A second part creates the same number of bare Jobs without any
operator, as many at a time: the speed of the API server on this machine at this moment, to which the first figure is a
ratio.

With `--processes kube-apiserver=123,etcd=45` (`make bench` finds them) it also tells the processor time that each of them
spent per run. On a machine that others use too, this is the figure to compare: it barely depends on who else is at work.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import JOBS, NAMESPACES, TRAININGRUNS

CONCURRENCY = 32
ALONE = 9
"""Runs that are created one after the other; their median is given."""
ADDED = b'{"type":"ADDED"'
RUN_OF_JOB = re.compile(rb'"trainyard\.dev/run":"([^"]*)"')
HELD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "queue": ({"labels": {"kueue.x-k8s.io/queue-name": "nobody-admits"}}, {}),
    "scheduler": ({}, {"placement": {"nodeSelector": {"trainyard.dev/nowhere": "true"}}}),
}
"""What keeps a run from starting, as metadata and spec."""


def manifest(name: str, namespace: str, held_by: str) -> dict[str, Any]:
    metadata, spec = HELD[held_by]
    return {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {
            **spec,
            "model": {
                "scratch": {
                    "architecture": "llama",
                    "config": {"hidden_size": 64},
                    "tokenizer": {"trainVocabSize": 500},
                }
            },
            "datasets": [{"name": "text", "inline": {"text": "hello"}}],
            "training": {"method": "Pretrain", "maxSteps": 10},
        },
    }


def bare_job(name: str, namespace: str) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


async def create_all(cluster: Cluster, resource: Any, bodies: list[dict[str, Any]]) -> dict[str, float]:
    """Monotonic time at which each create was answered, by name."""
    answered: dict[str, float] = {}
    queue = iter(bodies)

    async def work() -> None:
        for body in queue:
            await cluster.create(resource, body["metadata"]["namespace"], body)
            answered[body["metadata"]["name"]] = time.monotonic()

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return answered


class JobWatch:
    """Jobs as they come over the wire: nobody decodes them, because that would take the processor from the measured.

    The API server closes the watch of a client that falls behind. The next watch begins with all Jobs that are there, so
    none is missed; those made in between are seen a little late.
    """

    def __init__(self, namespace: str, owner: re.Pattern[bytes] = RUN_OF_JOB) -> None:
        self.seen: dict[str, float] = {}
        """Monotonic time at which each run's Job was seen, by name of the run."""
        self._owner = owner
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs?watch=true"
        self._process: asyncio.subprocess.Process | None = None

    async def until(self, wanted: int) -> None:
        """Note Jobs until so many have been seen."""
        while len(self.seen) < wanted:
            process = await self._watching()
            assert process.stdout is not None
            line = await process.stdout.readline()
            if line.startswith(ADDED) and (run := self._owner.search(line)):
                self.seen.setdefault(run[1].decode(), time.monotonic())
            elif not line:
                self._process = None
                if await process.wait():
                    raise RuntimeError(f"kubectl get --raw {self._path} ended with {process.returncode}")

    async def _watching(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                "kubectl", "get", "--raw", self._path, stdout=asyncio.subprocess.PIPE, limit=2**24
            )
        return self._process

    async def close(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # it ends by itself when its watch is closed
                self._process.terminate()
            await self._process.wait()


def processor_seconds(pids: dict[str, int]) -> dict[str, float]:
    """Processor time that each process has spent so far, user and system."""
    tick = os.sysconf("SC_CLK_TCK")
    spent = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent[name] = (int(fields[11]) + int(fields[12])) / tick
    return spent


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {m[1]: float(m[2]) for line in lines if (m := re.match(r"^(trainyard_\S+|process_\S+) (\S+)$", line))}


def writes(metrics: dict[str, float]) -> dict[str, float]:
    """API writes by verb and resource, without the Lease."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if name.startswith("trainyard_api_requests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            if labels["verb"] not in ("get", "list", "discover") and labels["resource"] != "leases":
                key = f"{labels['verb']} {labels['resource']}"
                found[key] = found.get(key, 0) + value
    return found


def written_statuses(metrics: dict[str, float]) -> float:
    """Status writes so far."""
    return writes(metrics).get("update trainingruns/status", 0.0)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--namespace", default="burst")
    parser.add_argument("--held-by", choices=HELD, default="queue", help="what keeps the runs from starting")
    parser.add_argument("--metrics", required=True, help="URL of the operator's metrics")
    parser.add_argument("--processes", default="", help="processes of the cluster on this machine: name=pid,name=pid")
    parser.add_argument("--idle", type=float, default=60, help="seconds of silence that are counted afterwards")
    args = parser.parse_args()
    cluster = await Cluster.connect()
    try:
        await measure(cluster, args)
    finally:
        await cluster.delete(NAMESPACES, None, args.namespace)
        await cluster.close()


async def measure(cluster: Cluster, args: argparse.Namespace) -> None:
    """The burst, the silence after it, and the bare Jobs to compare with; prints the figures."""
    pids = {name: int(pid) for name, _, pid in (pair.partition("=") for pair in args.processes.split(",") if pair)}
    present = await cluster.get(NAMESPACES, None, args.namespace)
    if present is not None and "deletionTimestamp" in present["metadata"]:  # that of an earlier burst is still going
        wait = ("kubectl", "wait", "--for=delete", f"namespace/{args.namespace}", "--timeout=10m")
        await (await asyncio.create_subprocess_exec(*wait, stdout=asyncio.subprocess.DEVNULL)).wait()
        present = None
    if present is None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": args.namespace}}
        await cluster.create(NAMESPACES, None, body)

    watch = JobWatch(args.namespace)
    try:
        # One alone first: what a single user feels. The first of them also waits for the watch to begin.
        ones = []
        for name in (f"alone-{i}" for i in range(ALONE)):
            alone = asyncio.create_task(watch.until(len(watch.seen) + 1))
            started = await create_all(cluster, TRAININGRUNS, [manifest(name, args.namespace, args.held_by)])
            await asyncio.wait_for(alone, 60)
            ones.append(watch.seen[name] - started[name])
            await asyncio.sleep(0.5)  # its status is out of the way of the next

        pids["benchmark"] = os.getpid()
        before, spent_before = scrape(args.metrics), processor_seconds(pids)
        bodies = [manifest(f"burst-{i:04}", args.namespace, args.held_by) for i in range(args.runs)]
        noting = asyncio.create_task(watch.until(args.runs + ALONE))
        begin = time.monotonic()
        created = await create_all(cluster, TRAININGRUNS, bodies)
        creating = time.monotonic() - begin
        await asyncio.wait_for(noting, 600)
        whole = max(watch.seen.values()) - begin
        at_once, spent = scrape(args.metrics), processor_seconds(pids)
        # The operator puts off the runs' first statuses while new runs wait; so this is when all of its work is done.
        while written_statuses(told := scrape(args.metrics)) - written_statuses(before) < args.runs:
            if time.monotonic() - begin > 900:
                raise TimeoutError("not every run has a status after 15 minutes")
            await asyncio.sleep(0.5)
        telling = time.monotonic() - begin
        spent_in_all = processor_seconds(pids)
    finally:
        await watch.close()
    delays = [max(0.0, watch.seen[name] - at) for name, at in created.items()]
    per_run = {k: round((v - writes(before).get(k, 0)) / args.runs, 2) for k, v in writes(at_once).items()}

    settled = time.monotonic()
    quiet = scrape(args.metrics)
    while time.monotonic() - settled < 300:
        await asyncio.sleep(5)
        now = scrape(args.metrics)
        if writes(now) == writes(quiet):
            break
        quiet = now
    await asyncio.sleep(args.idle)
    after = scrape(args.metrics)

    begin = time.monotonic()
    await create_all(cluster, JOBS, [bare_job(f"bare-{i:04}", args.namespace) for i in range(args.runs)])
    bare = args.runs / (time.monotonic() - begin)

    def milliseconds(until: dict[str, float], metrics: dict[str, float]) -> dict[str, float]:
        used = {name: until[name] - spent_before[name] for name in pids}
        used["operator"] = metrics["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
        used["sum"] = sum(used.values())
        return {name: round(1000 * seconds / args.runs, 1) for name, seconds in used.items()}

    print(
        json.dumps(
            {
                "runs": args.runs,
                "one_alone_seconds": round(statistics.median(ones), 3),
                "runs_per_second": round(args.runs / whole, 1),
                "runs_per_second_until_all_statuses_are_written": round(args.runs / telling, 1),
                "created_per_second": round(args.runs / creating, 1),
                "create_to_job_p50_seconds": round(statistics.median(delays), 3),
                "create_to_job_p99_seconds": round(percentile(delays, 0.99), 3),
                "writes_per_run_until_all_jobs_exist": per_run,
                "writes_per_minute_idle": sum(writes(after).values()) - sum(writes(now).values()),
                "operator_resident_megabytes": round(after["process_resident_memory_bytes"] / 1e6),
                "processor_milliseconds_per_run_until_all_jobs_exist": milliseconds(spent, at_once),
                "processor_milliseconds_per_run_until_all_statuses_are_written": milliseconds(spent_in_all, told),
                "bare_jobs_per_second": round(bare, 1),
                "runs_per_second_to_bare_jobs_per_second": round(args.runs / whole / bare, 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
