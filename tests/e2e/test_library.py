"""The tests' own tools: what they report has to be true before anything is concluded from it."""

import threading

from tests.e2e import processes
from tests.e2e.kube import CONFIG_MAPS, Kube
from tests.e2e.recording import Recording
from tests.e2e.scripted import IMAGE
from trainyard.controller.kube.resources import PODS


def test_a_recording_shows_what_was_gone_before_the_next_look(kube: Kube, space: str) -> None:
    with Recording(kube, CONFIG_MAPS, space) as recording:
        for text in ("first", "second"):
            kube.create(CONFIG_MAPS, space, {"metadata": {"name": "short-lived"}, "data": {"text": text}})
            kube.delete(CONFIG_MAPS, space, "short-lived")
        kube.create(CONFIG_MAPS, space, {"metadata": {"name": "last"}})
        for change in recording.follow(seconds=20):
            if change.object["metadata"]["name"] == "last":
                break
    made = [name for name in recording.created() if name != "kube-root-ca.crt"]
    assert made == ["short-lived", "short-lived", "last"]
    assert [o["data"]["text"] for o in recording.versions("short-lived")] == ["first", "second"]


def test_waiting_sees_a_change_that_comes_later(kube: Kube, space: str) -> None:
    kube.create(CONFIG_MAPS, space, {"metadata": {"name": "later"}})
    change = {"data": {"done": "yes"}}
    timer = threading.Timer(0.5, lambda: kube.merge(CONFIG_MAPS, space, "later", change))
    timer.start()
    found = kube.wait(CONFIG_MAPS, space, "later", lambda o: bool(o and o.get("data")), seconds=20, what="the change")
    timer.join()
    assert found is not None
    assert found["data"] == change["data"]


def test_killing_a_container_ends_that_container(kube: Kube, space: str) -> None:
    container = {
        "name": "trainer",
        "image": IMAGE,
        "command": ["python3", "-c", "import signal; print('ready', flush=True); signal.pause()"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod_security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "containers": [container], "securityContext": pod_security}
    kube.create(PODS, space, {"metadata": {"name": "victim"}, "spec": spec})
    pod = kube.wait(
        PODS,
        space,
        "victim",
        lambda p: bool(p and processes.container_id(p, "trainer")),
        seconds=60,
        what="a running container",
    )
    assert pod is not None
    assert next(kube.follow_log(space, "victim", seconds=30)) == "ready"
    assert processes.kill(pod, "trainer")
    ended = kube.wait(
        PODS, space, "victim", lambda p: bool(p and p["status"]["phase"] == "Failed"), seconds=30, what="the end"
    )
    assert ended is not None
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
