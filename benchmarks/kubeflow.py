"""A burst of TrainingRuns and one of Kubeflow's TrainJobs, in turns on the same cluster: how long until each one's Job exists.

    python benchmarks/kubeflow.py --runs 1000

Kubeflow Trainer 2.0.0 and the JobSet 0.10.1 that it works through are built from their Go modules the first time (some minutes),
run as processes of this machine, and are gone afterwards with all they brought: definitions, webhooks, namespaces. Both kinds
are held before they start a pod, ours by a queue that nobody serves, theirs by `suspend`. Each creates the same thing:
one suspended Job of one pod.

JobSet's webhooks for its own kind are in place, because its controller relies on them; the webhooks of Trainer and those for
pods are not, which spares Kubeflow their time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from burst import JobWatch, create_all, manifest, percentile, processor_seconds

import target
from bench import processes
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import TRAININGRUNS, Resource

JOBSET = ("sigs.k8s.io/jobset", "v0.10.1", "sigs.k8s.io/jobset")
TRAINER = ("github.com/kubeflow/trainer/v2", "v2.0.0", "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager")
"""Module, version and package of each program."""
HOME = target.STATE / "servers/kubeflow"
SYSTEM = "kubeflow-system"
SECRET = "kubeflow-trainer-webhook-cert"
TRAINER_WEBHOOKS = "validator.trainer.kubeflow.org"
SERVING = Path("/tmp/k8s-webhook-server/serving-certs")
"""Where Trainer waits for its certificate; it has no setting for it."""
PORTS = {"jobset": 19443, "trainer": 19444}
TRAINJOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
JOBSETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
RUNTIME = "burst"
JOB_OF_TRAINJOB = re.compile(rb'"jobset\.sigs\.k8s\.io/jobset-name":"([^"]*)"')
SETTLED_SECONDS = 3.0


def train_job(name: str, namespace: str) -> dict[str, Any]:
    """The counterpart of a run that a queue holds."""
    return {
        "apiVersion": TRAINJOBS.api_version,
        "kind": TRAINJOBS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"suspend": True, "runtimeRef": {"name": RUNTIME}},
    }


def runtime() -> dict[str, Any]:
    """One pod, no more."""
    container = {"name": "node", "image": "none", "command": ["train"]}
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {
        "apiVersion": TRAINJOBS.api_version,
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": RUNTIME},
        "spec": {
            "mlPolicy": {"numNodes": 1},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }


def build(module: str, version: str, package: str, name: str) -> Path:
    """The program, built where it is not there yet, and the folder of its module's sources."""
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "go.mod").exists():
        (folder / "go.mod").write_text("module burst\n\ngo 1.26\n")
    environment = {**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false"}

    def go(*words: str) -> str:
        done = subprocess.run(["go", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"go {' '.join(words)} failed")
        return done.stdout

    if not (folder / "program").exists():
        print(f"building {module} {version}", file=sys.stderr)
        go("get", f"{module}@{version}")
        go("build", "-trimpath", "-ldflags=-s -w", "-o", "program", package)
    return Path(go("list", "-m", "-f", "{{.Dir}}", module).strip())


def apply(*objects: dict[str, Any]) -> None:
    """Server-side: these definitions are too large for an annotation."""
    target.call(
        "kubectl",
        "apply",
        "--server-side",
        "-f",
        "-",
        stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": objects}),
    )


@contextmanager
def installed(sources: dict[str, Path], work: Path) -> Iterator[dict[str, int]]:
    """JobSet and Trainer at work; the ids of their processes."""
    with ExitStack() as undo:

        def bring(*objects: dict[str, Any], kinds: str, names: list[str]) -> None:
            undo.callback(
                target.call, "kubectl", "delete", kinds, *names, "--ignore-not-found", "--timeout=10m", check=False
            )
            apply(*objects)

        files = [sources["jobset"] / "config/components/crd/bases", sources["trainer"] / "manifests/base/crds"]
        definitions = [str(f) for folder in files for f in sorted(folder.glob("*_*.yaml"))]
        words = [word for file in definitions for word in ("-f", file)]
        undo.callback(target.call, "kubectl", "delete", "--ignore-not-found", "--timeout=10m", *words, check=False)
        target.call("kubectl", "apply", "--server-side", *words)
        target.call("kubectl", "wait", "--for=condition=Established", "--timeout=60s", *words)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": SYSTEM}}
        bring(namespace, kinds="namespace", names=[SYSTEM])
        bring(secret, kinds="secret", names=["--namespace", SYSTEM, SECRET])
        none = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": TRAINER_WEBHOOKS}, "webhooks": []}
        bring(
            {**none, "kind": "ValidatingWebhookConfiguration"},
            kinds="validatingwebhookconfiguration",
            names=[TRAINER_WEBHOOKS],
        )
        authority = make_certificate(work)
        jobset = undo.enter_context(
            started("jobset", work, "--config", str(jobset_settings(work)), "--metrics-bind-address=0")
        )
        hooks = [webhooks(kind, authority) for kind in ("mutating", "validating")]
        for hook in hooks:
            bring(hook, kinds=hook["kind"].lower(), names=[hook["metadata"]["name"]])
        undo.callback(shutil.rmtree, SERVING, ignore_errors=True)
        port = f"--webhook-server-port={PORTS['trainer']}"
        trainer = undo.enter_context(started("trainer", work, port, "--health-probe-bind-address=0"))
        hand_over_certificate(trainer)
        bring(runtime(), kinds="clustertrainingruntime", names=[RUNTIME])
        yield {"jobset": jobset.pid, "kubeflow-trainer": trainer.pid}


def make_certificate(work: Path) -> str:
    """For JobSet's webhooks on this machine; returns it as a caBundle."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"]
    subprocess.run(command, cwd=work, check=True, stderr=subprocess.DEVNULL)
    return base64.b64encode((work / "tls.crt").read_bytes()).decode()


def jobset_settings(work: Path) -> Path:
    settings = {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"port": PORTS["jobset"], "certDir": str(work)},
        "health": {"healthProbeBindAddress": "0"},
    }
    (work / "jobset.json").write_text(json.dumps(settings))
    return work / "jobset.json"


def webhooks(kind: str, authority: str) -> dict[str, Any]:
    """JobSet's own, for JobSets."""
    verb, letter = ("mutate", "m") if kind == "mutating" else ("validate", "v")
    hook = {
        "name": f"{letter}jobset.kb.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {
            "url": f"https://127.0.0.1:{PORTS['jobset']}/{verb}-jobset-x-k8s-io-v1alpha2-jobset",
            "caBundle": authority,
        },
        "rules": [
            {
                "apiGroups": [JOBSETS.group],
                "apiVersions": [JOBSETS.version],
                "resources": [JOBSETS.plural],
                "operations": ["CREATE"] if kind == "mutating" else ["CREATE", "UPDATE"],
            }
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind.capitalize()}WebhookConfiguration",
        "metadata": {"name": f"burst-jobset-{kind}"},
        "webhooks": [hook],
    }


@contextmanager
def started(name: str, work: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        open(work / f"{name}.log", "wb") as log,
        subprocess.Popen(
            [str(HOME / name / "program"), *words], env=target.environment(), stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            print((work / f"{name}.log").read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()


def hand_over_certificate(trainer: subprocess.Popen[bytes]) -> None:
    """Trainer writes its certificate into a Secret and waits until it finds it as files, as a kubelet would put them there."""
    while not (
        data := json.loads(target.call("kubectl", "get", "secret", "-n", SYSTEM, SECRET, "-o", "json")).get("data")
    ):
        if trainer.poll() is not None:
            raise RuntimeError("Kubeflow Trainer ended early")
    SERVING.mkdir(parents=True, exist_ok=True)
    for file, content in data.items():
        (SERVING / file).write_bytes(base64.b64decode(content))


async def burst(
    cluster: Cluster,
    resource: Resource,
    make: Callable[[str, str], dict[str, Any]],
    pattern: re.Pattern[bytes] | None,
    *,
    name: str,
    runs: int,
) -> dict[str, float]:
    """Seconds until all Jobs are there, and how long each one took."""
    pids = processes()
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    watch = JobWatch(name, pattern) if pattern else JobWatch(name)
    try:
        first = asyncio.create_task(watch.until(1))  # the watch has begun, and everything has been asked for once
        await create_all(cluster, resource, [make("first", name)])
        await asyncio.wait_for(first, 300)
        await asyncio.sleep(SETTLED_SECONDS)
        spent, begin = processor_seconds(pids), asyncio.get_running_loop().time()
        noting = asyncio.create_task(watch.until(runs + 1))
        created = await create_all(cluster, resource, [make(f"burst-{i:05}", name) for i in range(runs)])
        await asyncio.wait_for(noting, 3600)
    finally:
        await watch.close()
    delays = [max(0.0, watch.seen[one] - at) for one, at in created.items()]
    used = sum(processor_seconds(pids).values()) - sum(spent.values())
    return {
        "per_second": runs / (max(watch.seen.values()) - begin),
        "p50": statistics.median(delays),
        "p99": percentile(delays, 0.99),
        "cluster_ms": 1000 * used / runs,
    }


async def compare(runs: int, rounds: int) -> None:
    """Both in turns; prints each turn and the ratio."""
    cluster = await Cluster.connect()
    ratios, names = [], []
    print(f"{'':12} {'per second':>10} {'p50 s':>7} {'p99 s':>7} {'cluster ms each':>16}   load")
    try:
        for turn in range(rounds):
            rates = []
            for told, resource, make, pattern in (
                ("TrainingRun", TRAININGRUNS, lambda n, ns: manifest(n, ns, "queue"), None),
                ("TrainJob", TRAINJOBS, train_job, JOB_OF_TRAINJOB),
            ):
                names.append(f"burst-{told.lower()}-{turn}")
                found = await burst(cluster, resource, make, pattern, name=names[-1], runs=runs)
                rates.append(found["per_second"])
                print(
                    f"{told:12} {found['per_second']:10.1f} {found['p50']:7.2f} {found['p99']:7.2f} "
                    f"{found['cluster_ms']:16.1f}   {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
            ratios.append(rates[0] / rates[1])
        print(
            f"\nTrainyard makes {statistics.median(ratios):.2f} times as many a second; {runs} of each, {rounds} rounds"
        )
    finally:
        await cluster.close()
        if names:
            target.call("kubectl", "delete", "namespace", *names, "--ignore-not-found", "--timeout=30m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    target.confirm_context()
    sources = {name: build(*which, name) for name, which in (("jobset", JOBSET), ("trainer", TRAINER))}
    os.environ |= target.environment()
    with tempfile.TemporaryDirectory() as work, installed(sources, Path(work)):
        asyncio.run(compare(given.runs, given.rounds))


if __name__ == "__main__":
    main()
