"""`make demo-agent`: from a runbook to an agent that answers, in one TrainingRun on real weights.

    RUNBOOK.md in git -> SmolLM2 with LoRA -> gate -> bucket, MLflow, GGUF, Ollama -> MODEL_VERSION in git -> what Flux applies

The servers are real ones (versitygw, MLflow, git over HTTP, Ollama), built at the first demo and kept in `.cluster/servers`;
they run on this machine, and pods reach them by names of the cluster. A second run that learns next to nothing is rejected
then, and the first one stays the champion.
"""

import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import smollm2
import target
from demo import Object, Parts, ended, follow, make_ready

sys.path.insert(0, str(target.ROOT))
from tests.servers import sinks

from trainyard.api.manifest import read_documents

EXAMPLE = target.ROOT / "examples/agent-sre"
NAMESPACE = "mlops"
AGENT = "agent-sre"
QUESTION = """cart: crash loop
Symptom: KubePodCrashLooping: pods of deployment cart in namespace shop restart again and again.
Answer with the runbook's first command."""


def repository() -> dict[str, str | bytes]:
    """What lies in the repository: the runbook, and the folder that Flux reads."""
    return {
        "docs/RUNBOOK.md": (EXAMPLE / "RUNBOOK.md").read_text(),
        "agents/agent-sre.yaml": (EXAMPLE / "fleet.yaml").read_text(),
        "agents/kustomization.yaml": "resources: [agent-sre.yaml]\n",
    }


@contextmanager
def lab(folder: Path, *, namespace: str = NAMESPACE) -> Iterator[sinks.Sinks]:
    """The servers, with the base model in its bucket, and their names and Secrets in the cluster."""
    with sinks.serving(folder, files=repository()) as servers:
        servers.store().upload_file(str(smollm2.fetch(target.STATE / "servers")), "bases", smollm2.FILE)
        space: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        objects = [space, *servers.objects(namespace), *servers.secrets(namespace, services=namespace)]
        apply(*objects)
        yield servers


def apply(*objects: Object) -> None:
    """Apply objects as they stand."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    target.call("kubectl", "apply", "-f", "-", stdin=text)


def manifest() -> Object:
    """The example's TrainingRun."""
    (document,) = read_documents((EXAMPLE / "trainingrun.yaml").read_text())
    found: Object = document.value
    return found


def worse() -> Object:
    """The same training, but for two steps only."""
    run = manifest()
    run["metadata"]["name"] = f"{AGENT}-worse"
    training = run["spec"]["training"]
    training.pop("numTrainEpochs")
    training["maxSteps"] = 2
    return run


def train(run: Object) -> Object:
    """Apply a run afresh and follow it to its end."""
    name = run["metadata"]["name"]
    target.call("kubectl", "delete", "trainingrun", name, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
    text = json.dumps({**run, "metadata": {**run["metadata"], "namespace": NAMESPACE}})
    target.call("kubectl", "apply", "-f", "-", stdin=text)
    done = follow(name=name, namespace=NAMESPACE)
    if ended(done) == "Failed":
        failure = done["status"].get("failure", {})
        raise target.Refused(f"the run failed: {failure.get('reason')}: {failure.get('message')}")
    return done


def verdict(run: Object) -> str:
    """Whether the gates let it pass, and why."""
    passed = next(c["status"] for c in run["status"]["conditions"] if c["type"] == "GatesPassed")
    return f"GatesPassed={passed}: {run['status']['evaluation'].get('message')}"


def champion(servers: sinks.Sinks) -> str:
    """The version that MLflow's alias names."""
    url = f"{servers.urls['mlflow']}/api/2.0/mlflow/registered-models/alias?name={AGENT}&alias=champion"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(json.load(answer)["model_version"]["version"])


def ask(servers: sinks.Sinks, model: str, question: str) -> str:
    """One answer of Ollama."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": False,
        "options": {"temperature": 0},
    }
    request = urllib.request.Request(f"{servers.urls['ollama']}/api/chat", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.load(answer)["message"]["content"])


def flux(servers: sinks.Sinks, folder: Path) -> str:
    """What Flux's kustomize-controller does: take the branch, build the folder, apply it on the server. The version that the
    cluster has then."""
    clone = folder / "flux"
    shutil.rmtree(clone, ignore_errors=True)
    servers.git("worktree", "add", "--force", "--detach", str(clone), "main")
    built = target.call("kubectl", "kustomize", str(clone / "agents"))
    words = ("apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller", "-f", "-")
    target.call("kubectl", *words, stdin=built)
    return target.call(
        "kubectl", "get", "configmap", AGENT, "-n", NAMESPACE, "-o", "jsonpath={.data.MODEL_VERSION}"
    ).strip()


def show(servers: sinks.Sinks, run: Object, folder: Path) -> None:
    """Where each result is, as its own server tells it."""
    status: dict[str, Any] = run["status"]
    version = status["model"]["version"]
    print(f"  gates     {verdict(run)}")
    for export in status["exports"]:
        print(f"  {export['name']:<9} {export.get('uri')}")
    latest = json.loads(servers.store().get_object(Bucket="models", Key=f"{AGENT}/latest.json")["Body"].read())
    print(f"  latest    {latest['uri']}")
    print(f"  champion  version {champion(servers)} of {AGENT} in MLflow")
    print(f"  git       {servers.git('log', '-1', '--format=%h %s', 'main')}")
    print(f"  Flux      MODEL_VERSION={flux(servers, folder)}")
    print(f"\n$ ollama run {AGENT}:{version}\n>>> {QUESTION}\n{ask(servers, f'{AGENT}:{version}', QUESTION)}")


def main() -> None:
    if target.cluster() != "local":
        raise target.Refused("make demo-agent needs CLUSTER=local: its servers are processes of this machine")
    parts = Parts()
    make_ready(parts)
    folder = Path(tempfile.mkdtemp(prefix="trainyard-demo-"))
    try:
        begun = time.monotonic()
        with lab(folder) as servers:
            parts.seconds["servers"] = time.monotonic() - begun
            with parts.part("training, gates, exports"):
                run = train(manifest())
            print("\n== result", flush=True)
            show(servers, run, folder)
            with parts.part("a worse run"):
                second = train(worse())
            print(f"  {verdict(second)}\n  champion  still version {champion(servers)}")
            print(f"\n== how long it took\n{parts.table(run)}\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except target.Refused as refused:
        sys.exit(f"demo-agent: {refused}")
    except KeyboardInterrupt:
        sys.exit(130)
