"""`make demo`: from a bare machine to a model that answers, with everything it does on the terminal.

Cluster, images, operator, `kubectl apply`, live progress, result, one question to the exported model, how long each part
took, and what to type next. Each part is idempotent, so a second demo only does what is left to do: it deletes the old run
and trains a new one.
"""

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import deploy
import target

RUN = "quickstart"
EXPORT = "file"
NAMESPACE = "default"
MANIFEST = "examples/quickstart/trainingrun.yaml"
RUN_SECONDS = 15 * 60
"""The run takes about a minute and a half; after so long something is wrong, and the demo says what."""

Object = dict[str, Any]


class Parts:
    """How long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        print(f"\n== {title}", flush=True)
        start = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - start

    def table(self, run: Object) -> str:
        total = sum(self.seconds.values())
        rows = [(title, seconds) for title, seconds in self.seconds.items()]
        lines = [f"  {title:<34}{seconds:7.1f} s" for title, seconds in rows]
        lines += [f"    of which {name:<23}{seconds:7.1f} s" for name, seconds in step_seconds(run)]
        return "\n".join([*lines, f"  {'in all':<34}{total:7.1f} s"])


def step_seconds(run: Object) -> Iterator[tuple[str, float]]:
    """Seconds of each step's successful attempt, from the making of its Job to its end."""
    for step in run["status"].get("steps", ()):
        for attempt in step.get("attempts", ())[-1:]:
            if attempt.get("startTime") and attempt.get("completionTime"):
                spent = _time(attempt["completionTime"]) - _time(attempt["startTime"])
                yield step["name"], spent.total_seconds()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def driver(command: str) -> None:
    """Run the cluster's driver with its own output on the terminal."""
    result = subprocess.run([sys.executable, str(target.ROOT / "tools/cluster"), command])
    if result.returncode != 0:
        raise target.Refused(f"`python3 tools/cluster {command}` failed; its last lines above say why")


def show(*arguments: str) -> None:
    """A kubectl command as one would type it, and its answer."""
    print(f"$ kubectl {' '.join(arguments)}", flush=True)
    print(target.call("kubectl", *arguments).rstrip(), flush=True)


def apply_afresh() -> None:
    """Delete an earlier run with its volume, then apply the example."""
    here = ("-n", NAMESPACE)
    target.call("kubectl", "delete", "trainingrun", RUN, *here, "--ignore-not-found", "--cascade=foreground")
    claim = f"persistentvolumeclaim/{RUN}-checkpoints"
    target.call("kubectl", "wait", "--for=delete", claim, *here, "--timeout=60s")
    show("apply", "-f", MANIFEST, *here)


def ended(run: Object) -> str | None:
    """`Complete` or `Failed`, or None while it goes on."""
    conditions = run.get("status", {}).get("conditions", ())
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


def follow(*, name: str = RUN, namespace: str = NAMESPACE) -> Object:
    """kubectl's own live table, until the run has ended; the run as it then is."""
    words = ("get", "trainingruns", name, "-n", namespace, "--watch")
    print(f"$ kubectl {' '.join(words)}", flush=True)
    kubectl, environment = target.program("kubectl"), target.environment()
    with subprocess.Popen([kubectl, *words], env=environment) as table:
        try:
            return _until_ended([kubectl, *words, "-o", "json"], environment)
        finally:
            table.terminate()


def _until_ended(command: list[str], environment: dict[str, str]) -> Object:
    deadline = time.monotonic() + RUN_SECONDS
    seen: queue.Queue[Object | None] = queue.Queue()
    while True:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watch:
            threading.Thread(target=_read_objects, args=(watch, seen), daemon=True).start()
            try:
                while (run := seen.get(timeout=max(deadline - time.monotonic(), 0.1))) is not None:
                    if ended(run):
                        return run
            except queue.Empty:
                raise target.Refused(f"the run has not ended after {RUN_SECONDS} s\n\n{_describe()}") from None
            finally:
                watch.terminate()


def _read_objects(watch: subprocess.Popen[str], seen: "queue.Queue[Object | None]") -> None:
    """Objects of a watch's output, one JSON text after the other; None when it ends."""
    assert watch.stdout is not None
    decoder, text = json.JSONDecoder(), ""
    for line in watch.stdout:
        text += line
        if line.startswith("}"):
            value, _ = decoder.raw_decode(text)
            seen.put(value)
            text = ""
    seen.put(None)


def _describe() -> str:
    return target.call("kubectl", "describe", "trainingrun", RUN, "-n", NAMESPACE, check=False)


def show_result(run: Object) -> None:
    """The final row, what was measured, and what the model writes."""
    status = run["status"]
    show("get", "trainingruns", RUN, "-n", NAMESPACE)
    print()
    if dataset := status.get("dataset"):
        splits = ", ".join(f"{count} {name}" for name, count in dataset.get("splits", {}).items() if count)
        print(f"  data      {dataset.get('records')} files ({splits}), {dataset.get('tokens'):,} tokens")
    measured = ", ".join(f"{m['name']} {m['value']}" for m in (status.get("evaluation") or {}).get("metrics", ()))
    print(f"  held out  {measured}")
    print(f"  model     {(status.get('outputs') or {}).get('uri')}")
    sample = samples(status)
    if sample:
        print("\nWhat the model writes, after so little training (shape before sense):\n")
        print(sample)


def samples(status: Object) -> str:
    """What the evaluation generated, from its pod's log."""
    job = next((s.get("job") for s in status.get("steps", ()) if s["name"] == "evaluate"), None)
    if job is None:
        return ""
    log = target.call("kubectl", "logs", f"job/{job}", "-n", NAMESPACE, check=False)
    return "\n".join(sample_lines(log))


def sample_lines(log: str) -> Iterator[str]:
    """The blocks `sample N:` of a log with the indented lines below each."""
    inside = False
    for line in log.splitlines():
        inside = bool(re.search(r"\bsample \d+:$", line)) or (inside and line.startswith(" "))
        if inside:
            yield line


QUESTION = "def __init__(self, "
ASK = (
    "import sys; from pathlib import Path; from trainyard.trainer.exports.handover.llamacpp import GREEDY, opened; "
    "print(opened(Path(sys.argv[1]), threads=2).post('/completion', "
    "{'prompt': sys.argv[2], 'n_predict': 24, **GREEDY})['content'])"
)
ANSWER_SECONDS = 60


def ask(run: Object) -> str:
    """What the exported file answers, by llama.cpp in a pod like that of its export."""
    export = next(e for e in run["status"]["exports"] if e["name"] == EXPORT)
    step = next(s for s in run["status"]["steps"] if s["name"] == f"export-{EXPORT}")
    job = json.loads(target.call("kubectl", "get", "job", step["job"], "-n", NAMESPACE, "-o", "json"))
    pod, name = asking(job, export["uri"]), f"{RUN}-question"
    target.call("kubectl", "delete", "pod", name, "-n", NAMESPACE, "--ignore-not-found")
    target.call("kubectl", "create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(pod))
    try:
        for _ in range(ANSWER_SECONDS * 2):
            phase = target.call("kubectl", "get", "pod", name, "-n", NAMESPACE, "-o", "jsonpath={.status.phase}")
            if phase in ("Succeeded", "Failed"):
                break
            time.sleep(0.5)
        said = target.call("kubectl", "logs", name, "-n", NAMESPACE)
        if phase != "Succeeded":
            raise target.Refused(f"the exported model did not answer ({phase}):\n{said}")
        return said.rstrip()
    finally:
        target.call("kubectl", "delete", "pod", name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")


def asking(job: Object, folder: str) -> Object:
    """A pod with the volumes and rights of the export's, that asks its file and is nobody's."""
    spec = json.loads(json.dumps(job["spec"]["template"]["spec"]))
    (container,) = spec["containers"]
    mounted = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "trainyard-checkpoints")
    container["command"] = ["python", "-c", ASK, f"{mounted}/{folder}/{RUN}-f16.gguf", QUESTION]
    for field in ("args", "livenessProbe", "terminationMessagePath"):
        container.pop(field, None)
    spec["restartPolicy"] = "Never"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{RUN}-question"}, "spec": spec}


NEXT = f"""\
What to type next:
  kubectl describe trainingrun {RUN}              conditions, attempts, events
  kubectl logs job/{RUN}-train-1                  the training's own log
  kubectl explain trainingrun.spec                    every field
  .venv/bin/trainyard validate -f my-run.yaml         check a manifest before it goes anywhere
  .venv/bin/trainyard run --local -f {MANIFEST}
  make cluster-down                                   stop the cluster
"""


def make_ready(parts: Parts) -> None:
    """A cluster with the operator in it."""
    with parts.part("cluster"):
        driver("up")
    if "OPERATOR_IMAGE" not in os.environ:
        with parts.part("images"):
            driver("images")
    with parts.part("operator (helm upgrade --install)"):
        deploy.install()


def main() -> None:
    parts = Parts()
    make_ready(parts)
    show("get", "pods", "-n", target.NAMESPACE)
    with parts.part("training run"):
        apply_afresh()
        run = follow()
    print("\n== result", flush=True)
    if ended(run) == "Failed":
        failure = run["status"].get("failure", {})
        raise target.Refused(
            f"the run failed: {failure.get('reason')}: {failure.get('message')}\n{failure.get('hint') or ''}\n\n{_describe()}"
        )
    show_result(run)
    with parts.part("one question to the exported model"):
        print(f"  {QUESTION!r} -> {ask(run)!r}")
    print(f"\n== how long it took\n{parts.table(run)}\n")
    if target.cluster() != "existing":
        print(
            f"export KUBECONFIG={os.path.relpath(target.STATE / 'kubeconfig')}; PATH={os.path.relpath(target.STATE / 'bin')}:$PATH"
        )
    print(NEXT)


if __name__ == "__main__":
    try:
        main()
    except target.Refused as refused:
        sys.exit(f"demo: {refused}")
    except KeyboardInterrupt:
        sys.exit(130)
