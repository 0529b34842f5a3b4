"""The quickstart in the cluster, from `kubectl apply` to its end, and where the time goes.

    python benchmarks/quickstart.py --runs 3
    python benchmarks/quickstart.py --runs 3 --before REGISTRY/trainer:TAG      another trainer image takes turns with the installed one

The operator has to be installed and the images on the nodes (one run is made first and not counted). Of each step: how long the
operator and the cluster took until its container ran, how long it ran, and of a training how much of that was not steps.
Times of containers are the kubelet's, in whole seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import target
from trainyard.api.names import RUN_LABEL, STEP_LABEL, TRAINER_CONTAINER

MANIFEST = target.ROOT / "examples/quickstart/trainingrun.yaml"
NAMESPACE = "bench-quickstart"
SECONDS = 900


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measured(name: str, image: str | None) -> dict[str, float]:
    """One run, without its export; the parts in seconds, in their order."""
    run = yaml.safe_load(MANIFEST.read_text())
    run["metadata"] = {"name": name, "namespace": NAMESPACE}
    run["spec"].pop("exports", None)
    if image:
        run["spec"]["image"] = image
    began = time.time()
    target.call("kubectl", "create", "-f", "-", stdin=json.dumps(run))
    here = ("-n", NAMESPACE)
    ended = ("wait", "--for=jsonpath={.status.completionTime}", f"--timeout={SECONDS}s", "trainingrun", name)
    target.call("kubectl", *ended, *here)
    parts = {"apply to the end": time.time() - began}
    status = json.loads(target.call("kubectl", "get", "trainingrun", name, *here, "-o", "json"))["status"]
    if status["state"] != "Succeeded":
        raise target.Refused(f"{name} is {status['state']}: {status['message']}")
    pods = json.loads(target.call("kubectl", "get", "pods", *here, "-l", f"{RUN_LABEL}={name}", "-o", "json"))["items"]
    last = began
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        step = pod["metadata"]["labels"][STEP_LABEL]
        container = next(c for c in pod["status"]["containerStatuses"] if c["name"] == TRAINER_CONTAINER)
        ran = container["state"]["terminated"]
        started, ended_at = seconds(ran["startedAt"]), seconds(ran["finishedAt"])
        parts[f"until {step} runs"] = started - last
        parts[step] = ended_at - started
        timings = json.loads(ran.get("message") or "{}").get("timings", {})
        if "training" in timings:
            parts[f"{step}, without its steps"] = parts[step] - timings["training"]
        last = ended_at
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--before", help="another trainer image")
    given = parser.parse_args()
    target.confirm_context()
    sides = {"now": None, **({"before": given.before} if given.before else {})}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    target.call("kubectl", "create", "namespace", NAMESPACE)
    try:
        for number in range(given.runs + 1):
            for side, image in sides.items():
                parts = measured(f"{side}-{number}", image)
                if number:
                    found[side].append(parts)
    finally:
        subprocess.run(
            [target.program("kubectl"), "delete", "namespace", NAMESPACE],
            env=target.environment(),
            stdout=subprocess.DEVNULL,
        )
    print(f"seconds, median of {given.runs}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs\n")
    middle = {
        side: {part: statistics.median(run[part] for run in runs) for part in runs[0]} for side, runs in found.items()
    }
    print(f"{'':28}" + "".join(f"{side:>8}" for side in sides))
    for part in middle["now"]:
        print(f"{part:28}" + "".join(f"{middle[side].get(part, float('nan')):8.1f}" for side in sides))
    if given.before:
        ratios = [a["apply to the end"] / b["apply to the end"] for a, b in zip(*found.values(), strict=True)]
        print(f"\n{statistics.median(ratios):.2f} of the time")


if __name__ == "__main__":
    main()
