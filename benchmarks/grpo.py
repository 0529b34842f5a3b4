"""GRPO on real weights: does a reward that can be checked grow, and does it stay where it is if the rewards are dealt out at random?

    python benchmarks/grpo.py [--steps 22] [--only rewarded|shuffled]

SmolLM2-135M-Instruct gets the alerts of examples/agent-sre/RUNBOOK.md, after one alert that is answered, and is rewarded for a
well-formed kubectl command of one line (1) and for naming the alert's own namespace (1). Printed are both, as shares of the
answers to alerts that it has not been trained on, before and after. The second training gets the same rewards in an order
drawn at random, over all answers of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "trainer-image"), str(ROOT / "tools")]
EXAMPLE = [
    {"role": "user", "content": "KubePodPending: web in namespace media waits for a node."},
    {"role": "assistant", "content": "kubectl -n media get events"},
]
VERBS = "get|describe|logs|top|rollout|scale|delete|exec|edit|apply|patch|cordon|drain|uncordon|label|annotate|events"
COMMAND = rf"^kubectl (-n [a-z0-9-]+ )?({VERBS})( [A-Za-z0-9./=:@_,-]+)+$"
TOLD = ("rewards/regex", "rewards/contains", "objective/scores")


def records() -> list[dict[str, Any]]:
    """An alert each; the answer is the namespace that it speaks of."""
    text = (ROOT / "examples/agent-sre/RUNBOOK.md").read_text()
    found = re.findall(r"\*\*Symptom:\*\* (.*)", text)
    namespaces = (re.search(r"namespace (\S+?)[ .,]", alert) for alert in found)
    return [
        {"prompt": [*EXAMPLE, {"role": "user", "content": alert}], "answer": f"-n {namespace[1]}"}
        for alert, namespace in zip(found, namespaces, strict=True)
        if namespace
    ]


def spec(model: Path, steps: int) -> dict[str, Any]:
    return {
        "model": {"storageUri": f"file://{model}", "adapter": {"lora": {"rank": 16, "alpha": 32, "layers": 10}}},
        "datasets": [{"name": "alerts", "format": "Prompt", "inline": {"records": records()}, "split": {"eval": 0.3}}],
        "training": {
            "method": "GRPO",
            "maxSteps": steps,
            "maxLength": 160,
            "perDeviceTrainBatchSize": 8,
            "perDeviceEvalBatchSize": 32,
            "gradientAccumulationSteps": 2,
            "learningRate": 2e-4,
            "lrSchedulerType": "constant",
            "loggingSteps": 1,
            "precision": "FP32",
            "rewards": [{"regex": {"pattern": COMMAND}}, {"contains": {}}],
            "extraArgs": {"num_generations": 8, "max_completion_length": 28, "temperature": 0.7, "epsilon_high": 0.28},
        },
        "checkpoints": {"everySteps": 1000, "everyMinutes": 10},
    }


def contestant(name: str, folder: Path) -> None:
    """Prepare, train and evaluate in this process."""
    places = {
        "RUN_FILE": "run.json",
        "WORK_DIR": f"volume/{name}",
        "CACHE_DIR": "cache",
        "VOLUMES_DIR": "v",
        "SECRETS_DIR": "s",
    }
    os.environ |= {f"TRAINYARD_{variable}": str(folder / place) for variable, place in places.items()}
    os.environ["TRAINYARD_TERMINATION_LOG"] = ""
    from trainyard.trainer import __main__ as trainer
    from trainyard.trainer.methods import rewards

    if trainer.main(["prepare"]):
        raise SystemExit("prepare failed")
    if name == "shuffled":
        true, chance = rewards.Judge.__call__, random.Random(1)

        def dealt_out(self: Any, responses: Any) -> Any:
            totals, means = true(self, responses)
            chance.shuffle(totals)
            return totals, means

        rewards.Judge.__call__ = dealt_out  # type: ignore[method-assign]
    if trainer.main(["train"]):
        raise SystemExit("the training failed")
    if name == "shuffled":
        rewards.Judge.__call__ = true  # type: ignore[method-assign]
    raise SystemExit(trainer.main(["evaluate"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=22)
    parser.add_argument("--only", choices=["rewarded", "shuffled"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        contestant(asked.only, asked.folder)
    import smollm2
    from trainyard.trainer.volume.gguf import unpack

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "model").mkdir()
        unpack(smollm2.fetch(ROOT / ".cluster/servers"), folder / "model", "SmolLM2")
        run = {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": "grpo"},
            "spec": spec(folder / "model", asked.steps),
        }
        (folder / "run.json").write_text(json.dumps(run))
        for name in [asked.only] if asked.only else ["rewarded", "shuffled"]:
            started = time.monotonic()
            again = [sys.executable, __file__, "--folder", str(folder), "--only", name]
            subprocess.run(again, check=True, stdout=sys.stderr)
            measured = json.loads((folder / "volume" / name / "evaluation/metrics.json").read_text())
            print(f"{name}: {asked.steps} steps, {(time.monotonic() - started) / 60:.0f} min, held-out alerts")
            for metric in TOLD:
                before, after = measured["baseline"][metric], measured["metrics"][metric]
                print(f"  {metric:<20} {before:.3f} -> {after:.3f}" + (f"  ({after / before:.1f} x)" if before else ""))


if __name__ == "__main__":
    main()
