"""Everything a step knows before it starts, read once from the environment and the run's file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trainyard.api import names
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.run.dataset import Dataset
from trainyard.api.run.model import ModelSource
from trainyard.api.run.training import Training
from trainyard.api.run.trainingrun import TrainingRun
from trainyard.api.schedule.trainingschedule import ENV_SCHEDULED_TIME, ENV_WINDOW_END
from trainyard.trainer.errors import invalid_config


@dataclass(frozen=True)
class RunContext:
    """One step of one run, or of one of its phases. All paths are absolute; only the work folder is sure to be writable.

    For a phase, `run` is the run as if that phase were all of it, and `work_dir` is the phase's own folder in the run's:
    what trains and evaluates needs to know nothing of phases (see `phases.py`).
    """

    run: TrainingRun
    step: str
    """As the operator calls it: prepare, train, train-<phase>, evaluate or validate."""
    attempt: int
    uid: str
    work_dir: Path
    cache_dir: Path
    volumes_dir: Path
    secrets_dir: Path
    progress_url: str | None
    token_file: Path
    moment: datetime | None = None
    """Where windows of data end: the slot of the schedule, or the run's creation; None without a cluster."""
    phase: str | None = None
    is_last_phase: bool = False
    shared_tokenizer: str | None = None
    """Digest of what the tokenizer that all phases share is made from."""
    longest: int | None = None
    """The largest maxLength of all phases: the model has to be made for it from the beginning."""

    @property
    def run_dir(self) -> Path:
        """The run's folder on the volume."""
        return self.work_dir if self.phase is None else self.work_dir.parents[1]

    @property
    def data_dir(self) -> Path:
        """Prepared data with the tokenizer."""
        return self.work_dir / "data"

    @property
    def checkpoint_dir(self) -> Path:
        """Committed checkpoints."""
        return self.work_dir / "checkpoints"

    @property
    def model_dir(self) -> Path:
        """The final model, loadable by itself."""
        return self.work_dir / "model"

    @property
    def adapter_dir(self) -> Path:
        """The final adapter, where one was trained."""
        return self.work_dir / "adapter"

    @property
    def evaluation_dir(self) -> Path:
        """metrics.json and samples.json."""
        return self.run_dir / "evaluation"

    @property
    def volume(self) -> Path:
        """Root of the checkpoint volume; paths in records are relative to it."""
        return self.run_dir.parent

    @property
    def positions(self) -> int:
        """Tokens that the model has to take at once."""
        return self.longest or self.training.max_length

    @property
    def model(self) -> ModelSource:
        """spec.model, which the built-in trainer always has."""
        if self.run.spec.model is None:
            raise invalid_config("spec.model is missing", hint="give storageUri or scratch")
        return self.run.spec.model

    @property
    def training(self) -> Training:
        """spec.training, which the built-in trainer always has."""
        if self.run.spec.training is None:
            raise invalid_config("spec.training is missing", hint="give at least method")
        return self.run.spec.training

    @property
    def datasets(self) -> list[Dataset]:
        """spec.datasets, which the built-in trainer always has."""
        if not self.run.spec.datasets:
            raise invalid_config("spec.datasets is missing", hint="give at least one dataset")
        return list(self.run.spec.datasets)


def read_context(step: str, environment: Mapping[str, str] = os.environ) -> RunContext:
    """Read the run.

    Raises:
        UserError: the file is missing or is not a TrainingRun.
    """
    path = Path(environment.get(names.ENV_RUN_FILE, names.RUN_FILE))
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise invalid_config(
            f"{path} does not exist", hint=f"set {names.ENV_RUN_FILE}, or use `trainyard run -f run.yaml --local`"
        ) from error
    except ValueError as error:
        raise invalid_config(
            f"{path} is not JSON: {error}",
            hint=f"{names.ENV_RUN_FILE} names a TrainingRun as JSON; YAML is for trainyard run",
        ) from error
    try:
        run = parse_run(value)
    except InvalidManifest as error:
        raise invalid_config(str(error)) from error

    uid = environment.get(names.ENV_RUN_UID) or run.metadata.uid or "local"
    work_dir = Path(environment.get(names.ENV_WORK_DIR) or names.work_dir(run.metadata.name, uid)).absolute()
    return RunContext(
        run=run,
        step=step,
        attempt=attempt_number(environment),
        uid=uid,
        work_dir=work_dir,
        cache_dir=Path(environment.get(names.ENV_CACHE_DIR, names.CACHE_MOUNT)).absolute(),
        volumes_dir=Path(environment.get(names.ENV_VOLUMES_DIR, names.VOLUMES_MOUNT)).absolute(),
        secrets_dir=Path(environment.get(names.ENV_SECRETS_DIR, names.SECRETS_MOUNT)).absolute(),
        progress_url=environment.get(names.ENV_PROGRESS_URL) or None,
        token_file=Path(environment.get(names.ENV_TOKEN_FILE, names.TOKEN_FILE)),
        moment=_moment(environment, run.metadata.creation_timestamp),
    )


def _moment(environment: Mapping[str, str], created: str) -> datetime | None:
    text = environment.get(ENV_WINDOW_END) or environment.get(ENV_SCHEDULED_TIME) or created
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid_config(
            f"{ENV_WINDOW_END} is {text!r}, not a time", hint="write it as RFC 3339, for example 2026-11-01T02:00:00Z"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def attempt_number(environment: Mapping[str, str] = os.environ) -> int:
    """Which attempt at this step it is, from 1."""
    text = environment.get(names.ENV_ATTEMPT, "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def termination_log(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the final record goes; None if the environment names an empty path."""
    path = environment.get(names.ENV_TERMINATION_LOG, names.TERMINATION_LOG)
    return Path(path) if path else None
