"""Several runs want one GPU: who has it, and who comes before this run."""

from typing import Any

from tests.unit.controller.runs.test_waiting import JOB, START, pod
from tests.unit.controller.runs.world import World, manifest
from trainyard.controller.runs.device_queue import wanted_device, who_waits
from trainyard.controller.runs.waiting import Waited, why_waiting

GPU = "nvidia.com/gpu"
MISSES = f"0/2 nodes are available: 1 Insufficient {GPU}, 1 node(s) didn't match Pod's node affinity/selector."
RUN = World(manifest()).observe().run


def claimant(
    run: str,
    minute: int,
    *,
    priority: int = 0,
    node: str = "",
    namespace: str = "lab",
    phase: str = "Pending",
    **labels: str,
) -> dict[str, Any]:
    uid = RUN.uid if run == "tiny" else f"uid-{run}"
    marks = {"trainyard.dev/run": run, "trainyard.dev/run-uid": uid} if run else labels
    return {
        "metadata": {
            "name": f"pod-{run}",
            "uid": f"pod-{run}-{minute}",
            "namespace": namespace,
            "labels": marks,
            "creationTimestamp": f"2026-01-01T00:{minute:02}:00Z",
        },
        "spec": {
            "nodeName": node or None,
            "priority": priority,
            "containers": [{"name": "trainer", "resources": {"limits": {GPU: "1"}}}],
        },
        "status": {"phase": phase},
    }


ME = claimant("tiny", 10)


def test_priority_comes_before_age() -> None:
    pods = [
        ME,
        claimant("holder", 0, node="arcanine", phase="Running"),
        claimant("older", 5),
        claimant("younger", 15),
        claimant("urgent", 20, priority=100),
        claimant("lowly", 1, priority=-5),
        claimant("done", 2, node="arcanine", phase="Succeeded"),
    ]
    assert who_waits(RUN, GPU, pods) == (
        f"{GPU} is held by holder on arcanine; before this run come urgent (priority 100) and older (older)"
    )


def test_others_that_are_not_trainings_and_other_namespaces() -> None:
    ollama = claimant("", 0, node="arcanine", phase="Running")
    ollama["metadata"]["labels"] = None
    theirs = claimant("secret-project", 3, namespace="other")
    assert who_waits(RUN, GPU, [ME, ollama, theirs, theirs]) == (
        f"{GPU} is held by pod pod- on arcanine; before this run comes 1 pod of other namespaces"
    )


def test_pods_without_the_device_say_nothing() -> None:
    prepares = claimant("prepares", 0, node="arcanine", phase="Running")
    prepares["spec"]["containers"] = [{"name": "trainer"}]
    assert who_waits(RUN, GPU, [ME, prepares]) == ""


def test_the_scheduler_says_what_is_missing() -> None:
    assert wanted_device(MISSES, [GPU]) == GPU
    assert wanted_device("0/2 nodes are available: 2 Insufficient memory.", [GPU]) is None


def test_the_sentence_stands_in_the_status_and_is_no_stall() -> None:
    waits = why_waiting(JOB, pod(unschedulable=MISSES), now=START, about=Waited(line=f"{GPU} is held by a on arcanine"))
    assert waits is not None
    assert waits.message.startswith(f"waiting in line: {GPU} is held by a on arcanine (0/2 nodes")
    assert not waits.hopeless
