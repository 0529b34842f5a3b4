"""What a run costs as the runs become more: processor time, memory, the start of the operator, and whether it is quiet.

    python benchmarks/growth.py --sizes 100 1000 5000 10000 --finished 2000

First so many runs that have ended (cancelled before they had a pod) are made and stay. Then queued runs, as in `burst.py`, are added
until there are as many as the first size says, then the next. At each size: processor time of each run that was added since the
size before, until its status is written; the operator's memory; the time from the end of the operator's pod until a new one has
looked at everything; and what it writes in a quiet minute. At the end all of it is deleted, which takes about as long again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from burst import create_all, manifest, processor_seconds, scrape, writes, written_statuses

import target
from bench import metrics_url, processes
from trainyard.api.names import CANCEL_ANNOTATION
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import TRAININGRUNS

NAMESPACE = "bench-growth"
COLUMNS = (
    "runs",
    "all ms/run",
    "API server",
    "operator",
    "memory MB",
    "kB/run",
    "ready s",
    "at rest s",
    "idle writes",
    "load",
)
SETTLED_SECONDS = 10.0
LIMIT_SECONDS = 3600.0


def ended(name: str) -> dict[str, Any]:
    """A run that is over as soon as the operator has looked at it."""
    run = manifest(name, NAMESPACE, "queue")
    run["metadata"]["annotations"] = {CANCEL_ANNOTATION: "a benchmark"}
    return run


async def added(cluster: Cluster, bodies: list[dict[str, Any]], url: str) -> tuple[dict[str, float], dict[str, float]]:
    """Processor seconds by process until each has its status, and the metrics then."""
    pids, before = processes(), scrape(url)
    spent, begin = processor_seconds(pids), time.monotonic()
    await create_all(cluster, TRAININGRUNS, bodies)
    while written_statuses(now := scrape(url)) - written_statuses(before) < len(bodies):
        if time.monotonic() - begin > LIMIT_SECONDS:
            raise TimeoutError(f"not every run has a status after {LIMIT_SECONDS:.0f} s")
        await asyncio.sleep(0.5)
    used = {name: at - spent[name] for name, at in processor_seconds(pids).items()}
    used["operator"] = now["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return used, now


async def quiet(url: str) -> dict[str, float]:
    """The metrics, once nothing has been written and little computed for a while."""
    last = scrape(url)
    while True:
        await asyncio.sleep(SETTLED_SECONDS)
        now = scrape(url)
        busy = now["process_cpu_seconds_total"] - last["process_cpu_seconds_total"]
        if writes(now) == writes(last) and busy < 0.1 * SETTLED_SECONDS:
            return now
        last = now


async def restarted() -> tuple[float, float]:
    """Seconds until a new operator is ready, and until it has looked at everything."""
    here = ("-n", target.NAMESPACE)
    selector = json.loads(target.call("kubectl", "get", "deployment", target.RELEASE, *here, "-o", "json"))["spec"][
        "selector"
    ]
    labels = ",".join(f"{k}={v}" for k, v in selector["matchLabels"].items())
    begin = time.monotonic()
    target.call("kubectl", "delete", "pod", *here, "-l", labels, "--wait=true")
    target.call("kubectl", "rollout", "status", f"deployment/{target.RELEASE}", *here, "--timeout=10m")
    ready = time.monotonic() - begin
    with metrics_url() as url:
        await quiet(url)
    return ready, time.monotonic() - begin - SETTLED_SECONDS


async def measure(sizes: list[int], finished: int, idle: float) -> None:
    """Prints a line for each size."""
    target.call("kubectl", "create", "namespace", NAMESPACE)
    cluster = await Cluster.connect()
    first: float | None = None
    try:
        with metrics_url() as url:
            if finished:
                await added(cluster, [ended(f"ended-{i:05}") for i in range(finished)], url)
            empty = (await quiet(url))["process_resident_memory_bytes"]
        print(f"with {finished} that have ended: {empty / 1e6:.0f} MB\n")
        print(" ".join(f"{title:>11}" for title in COLUMNS))
        there = 0
        for size in sizes:
            with metrics_url() as url:
                bodies = [manifest(f"run-{i:05}", NAMESPACE, "queue") for i in range(there, size)]
                used, _ = await added(cluster, bodies, url)
                memory = (await quiet(url))["process_resident_memory_bytes"]
                before = writes(scrape(url))
                await asyncio.sleep(idle)
                written = sum(writes(scrape(url)).values()) - sum(before.values())
            ready, at_rest = await restarted()
            each = {name: 1000 * seconds / (size - there) for name, seconds in used.items()}
            there, cost = size, sum(each.values())
            first = first or cost
            values = (size, cost, each.get("kube-apiserver", math.nan), each["operator"], memory / 1e6)
            values += ((memory - empty) / 1e3 / size, ready, at_rest, written, os.getloadavg()[0])
            print(" ".join(f"{value:11,.1f}" for value in values), flush=True)
        print(f"\na run costs {cost / first:.2f} times as much at {sizes[-1]} as at {sizes[0]}")
    finally:
        await cluster.close()
        target.call("kubectl", "delete", "namespace", NAMESPACE, "--timeout=60m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 5000, 10_000])
    parser.add_argument("--finished", type=int, default=2000)
    parser.add_argument("--idle", type=float, default=60, help="seconds of silence that are counted")
    given = parser.parse_args()
    target.confirm_context()
    os.environ |= target.environment()
    asyncio.run(measure(sorted(given.sizes), given.finished, given.idle))


if __name__ == "__main__":
    main()
