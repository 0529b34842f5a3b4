"""A stand-in for a training script: it counts steps instead of computing them.

To the operator it is an ordinary `spec.command` run that keeps every rule: a checkpoint every few steps, exit code 75
after SIGTERM, progress in the format of transformers' KubeflowCallback. And it writes down each step it does, so that a
test can tell exactly which steps were done how often. It needs next to no CPU, so ten of them can run side by side.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.kube import Found, Kube, Object
from tests.e2e.runs import SMALL
from tests.e2e.volumes import work_folder

IMAGE = "localhost:5001/trainyard/trainer:dev"
SOURCE = Path(__file__).with_name("counting_script.py")


def counting(name: str, *, steps: int = 50, pause: float = 0.1, save: int = 10, **spec: Any) -> Object:
    """A run of `steps` steps of `pause` seconds, with a checkpoint every `save` steps."""
    whole: Object = {
        "image": IMAGE,
        "command": ["python3", "-c", SOURCE.read_text()],
        "args": [str(steps), str(pause), str(save)],
        "storage": {"checkpoints": {"size": "1Gi"}},
        "resources": SMALL | {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "podTemplate": {"terminationGracePeriodSeconds": 30},
        **spec,
    }
    return {"metadata": {"name": name}, "spec": whole}


def steps_done(kube: Kube, run: Found) -> Counter[int]:
    """How often each step was done, over all attempts."""
    lines = (work_folder(kube, run) / "steps.log").read_text().split()
    return Counter(int(line) for line in lines)
