"""Counts to a number, slowly, and can be interrupted. Arguments: steps, seconds of each step, steps between checkpoints."""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

total, pause, every = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
work = Path(os.environ["TRAINYARD_WORK_DIR"])
work.mkdir(parents=True, exist_ok=True)
saved = work / "checkpoint"
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())


def report(step: int) -> None:
    url = os.environ.get("KUBEFLOW_TRAINER_SERVER_URL")
    if not url:
        return
    metrics = {"current_step": step, "total_steps": total, "loss": 1 / (step + 1)}
    status = {
        "progressPercentage": 100 * step // total,
        "estimatedRemainingSeconds": int((total - step) * pause),
        "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
        "lastUpdatedTime": datetime.now(UTC).isoformat(),
    }
    token = Path(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text().strip()
    body = json.dumps({"trainerStatus": status}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=2).close()
    except OSError as error:
        print(f"progress not delivered: {error}", flush=True)


def save(step: int) -> None:
    fresh = saved.with_suffix(".new")
    fresh.write_text(str(step))
    fresh.replace(saved)


step = int(saved.read_text()) if saved.exists() else 0
print(f"begins at step {step}", flush=True)
reported = 0.0
with (work / "steps.log").open("a", buffering=1) as log:
    while step < total:
        if stop.wait(pause):
            save(step)
            print(f"stopped at step {step}", flush=True)
            sys.exit(75)
        step += 1
        log.write(f"{step}\n")
        if step % every == 0:
            save(step)
        if time.monotonic() - reported > 1:
            report(step)
            reported = time.monotonic()
report(total)
print("done", flush=True)
