"""The lab's own way on real pods: a script that is fetched when the pod starts, and called with its configuration and the job's id."""

from pathlib import Path

import pytest

from tests.e2e import runs
from tests.e2e.kube import CONFIG_MAPS, Kube, Object
from tests.e2e.scripted import IMAGE
from tests.e2e.web import serving
from tests.unit.lab import standalone_trainer

pytestmark = pytest.mark.timeout(300)


def fetched(name: str, url: str) -> Object:
    """A run of a script that knows nothing of Trainyard; the image has Python and no curl."""
    get = f"import urllib.request; urllib.request.urlretrieve('{url}', '/workspace/standalone_trainer.py')"
    call = "python3 /workspace/standalone_trainer.py --config /workspace/config.json --execution-id ${JOB_ID}"
    spec: Object = {
        "image": IMAGE,
        "command": ["sh", "-c", f'python3 -c "{get}" && {call}'],
        "storage": {"checkpoints": {"size": "100Mi"}},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}},
        "podTemplate": {
            "volumes": [{"name": "room", "emptyDir": {}}],
            "volumeMounts": [{"name": "room", "mountPath": "/workspace"}],
        },
    }
    return {"metadata": {"name": name, "labels": {"trainyard.dev/user": "ada"}}, "spec": spec}


def test_a_script_is_fetched_called_and_heard(kube: Kube, space: str) -> None:
    source = Path(standalone_trainer.__file__).read_bytes()
    with serving({"standalone_trainer.py": source}) as web:
        runs.apply(kube, space, fetched("scripted", f"{web.url}/standalone_trainer.py"))
        run = runs.until_succeeded(kube, space, "scripted", seconds=200)
    (pod,) = runs.pods(kube, space, "scripted", step="train")
    said = "\n".join(kube.follow_log(space, pod["metadata"]["name"], seconds=20))
    assert "everything was taken" in said, said
    assert "/api/training/local/metrics?step=train&attempt=1 ALERT_API_URL=http" in said
    assert runs.step_number(run) == 100
    assert {m["name"]: float(m["value"]) for m in run["status"]["trainerStatus"]["metrics"]}["eval_loss"] == 0.42
    kept = kube.wait(CONFIG_MAPS, space, "scripted-history", lambda o: o is not None, seconds=60, what="the curves")
    assert kept is not None
