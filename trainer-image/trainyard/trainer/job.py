"""All steps of a run at once, as the lab's trainer is called: `--config FILE --execution-id ID`.

Nobody else tells of such a run, so this does, with the lab's alerts at the lab's three places: when the training begins, before
the program ends well, and where it fails. A stop that the same call goes on from is told of by nobody: it is no end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.api.manifest import InvalidManifest
from trainyard.api.names import ENV_WORK_DIR
from trainyard.api.run.trainingrun import TrainingRun
from trainyard.api.steps import is_train
from trainyard.trainer.alerts import receiver, trigger_alert
from trainyard.trainer.errors import UserError
from trainyard.trainer.local import run_local
from trainyard.trainer.log import say

EXECUTION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run_job(arguments: list[str]) -> int:
    """The exit code, as of `trainyard run --local`."""
    parser = argparse.ArgumentParser(prog="python -m trainyard.trainer")
    parser.add_argument("--config", required=True, help="a TrainingRun, as YAML or JSON")
    parser.add_argument(
        "--execution-id", required=True, help="name of the work; it goes on where one of this name has stopped"
    )
    given = parser.parse_args(arguments)
    if not EXECUTION_ID.fullmatch(given.execution_id):
        say(
            f"--execution-id {given.execution_id!r} must be 1 to 64 letters, digits, '.', '_' or '-': a folder is named after it"
        )
        return ExitCode.INVALID_CONFIG
    os.environ.setdefault("JOB_ID", given.execution_id)
    if url := receiver(os.environ):
        say(
            f"alerts are posted to {urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
        )
    folder = Path(os.environ.get(ENV_WORK_DIR) or "runs") / given.execution_id
    job = Job(folder)
    message, code = "", int(ExitCode.INVALID_CONFIG)
    try:
        code = run_local(given.config, folder, {}, before=job.before)
    except InvalidManifest as error:
        message = f"--config {given.config}: {error}"
    except OSError as error:
        message = f"--config {given.config} cannot be read: {error.strerror or error}"
    except UserError as error:
        message, code = f"--config {given.config}: {error}", error.exit_code
    if message:
        say(message)
    job.tell_end(code, message)
    return code


class Job:
    """What has to be known to tell of its end."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._began = folder, time.monotonic()
        self._step, self._trained = "", ""

    def before(self, run: TrainingRun, step: str) -> None:
        """Hears of each step before it begins."""
        self._step = step
        if is_train(step):
            if not self._trained:
                trigger_alert("job_started", total_steps=run.spec.total_steps_hint())
            self._trained = step

    def tell_end(self, code: int, message: str) -> None:
        duration = round((time.monotonic() - self._began) * 1000)
        if code == ExitCode.OK:
            loss = (self._record(self._trained).get("metrics") or {}).get("loss")
            trigger_alert("job_completed", loss=loss, duration=duration)
        elif code != ExitCode.RESUME:
            record = self._record(self._step)
            reason = record.get("reason") or Reason.INVALID_CONFIG.value
            kind = "CUDA_OOM" if reason == Reason.DEVICE_OUT_OF_MEMORY else reason
            said = message or record.get("message") or f"{self._step} ended with exit code {code}"
            trigger_alert("job_failed", error_message=said, error_type=kind, duration=duration)

    def _record(self, step: str) -> dict[str, Any]:
        """What the step has left; empty where it has left nothing."""
        try:
            found = json.loads((self._folder / "logs" / f"{step}.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
