"""A TrainingRun without Kubernetes: the same steps as processes of this machine, one after the other.

The manifest is the same file that a cluster would get. What the operator would mount and set, this sets: the run's file,
a work folder in place of the checkpoint volume, folders for `pvc://` claims and for secrets. Stopping with Ctrl-C does
what suspending does: the training commits a checkpoint, and the next call goes on from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from trainyard.api import names
from trainyard.api.exitcodes import ExitCode
from trainyard.api.manifest import read_run
from trainyard.api.references import named
from trainyard.api.run.trainingrun import TrainingRun
from trainyard.api.steps import step_arguments
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.log import say

SAMPLES = "file:///opt/trainyard/samples/python-stdlib/"
"""Exists in the trainer image only; here it means this interpreter's own standard library."""


def run_local(
    manifest_path: Path | str,
    workdir: Path | str,
    volumes: Mapping[str, str],
    *,
    secrets: Path | str | None = None,
    before: Callable[[TrainingRun, str], None] = lambda run, step: None,
) -> int:
    """Run all steps of a manifest.

    Args:
        manifest_path: YAML with one TrainingRun.
        workdir: where data, checkpoints and the model go; kept, and continued from.
        volumes: folder for each claim that a `pvc://` address names.
        secrets: folder with one folder per Secret and one file per key.
        before: hears of each step before it begins.

    Returns:
        0, or the exit code of the step that did not succeed; 75 after a stop that can be continued.

    Raises:
        UserError: the manifest needs a cluster, or a claim has no folder.
        InvalidManifest: it is not a TrainingRun.
    """
    run = read_run(Path(manifest_path).read_text())
    if run.spec.command:
        raise invalid_config(
            "spec.command runs in an image of its own, which only a cluster can start",
            hint="locally, run that script itself",
        )
    work = Path(workdir).absolute()
    work.mkdir(parents=True, exist_ok=True)
    environment = step_environment(run, work, link_volumes(run, work, volumes), secrets)
    by_operator = {export.step for export in run.spec.all_exports() if export.row.by_operator}
    for step in run.spec.all_steps():
        if step in by_operator:
            say(f"--- {step} needs a cluster: left out")
            continue
        say(f"--- {step}")
        before(run, step)
        environment[names.ENV_STEP] = step
        environment[names.ENV_TERMINATION_LOG] = str(work / "logs" / f"{step}.json")
        code = _wait([sys.executable, "-m", "trainyard.trainer", *step_arguments(step)], environment)
        if code == ExitCode.RESUME:
            say(f"stopped in {step}; the same command goes on from here")
        if code != ExitCode.OK:
            return code
    say(f"done: {work / 'model' if (work / 'model').is_dir() else work}")
    return ExitCode.OK


def step_environment(run: TrainingRun, work: Path, volumes: Path, secrets: Path | str | None) -> dict[str, str]:
    """What the operator would set, on top of the caller's own environment."""
    (work / "logs").mkdir(exist_ok=True)
    run_file = work / "run.json"
    manifest = run.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"status"})
    for dataset in manifest["spec"].get("datasets", ()):
        uri = dataset.get("storageUri", "")
        if uri.startswith(SAMPLES) and not Path(SAMPLES.removeprefix("file://")).exists():
            dataset["storageUri"] = f"file://{sysconfig.get_path('stdlib')}/{uri.removeprefix(SAMPLES)}"
    run_file.write_text(json.dumps(manifest, indent=1))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trainyard"
    return {
        names.ENV_SIMULATED_GPU: "local",  # a manifest for a cluster may be tried on a machine without one
        **os.environ,
        names.ENV_RUN_NAME: run.metadata.name,
        names.ENV_NAMESPACE: run.metadata.namespace,
        names.ENV_RUN_UID: "local",
        names.ENV_ATTEMPT: "1",
        # Here there is one machine: pods become processes.
        names.ENV_NUM_PROC_PER_NODE: str(run.spec.world_size),
        names.ENV_RUN_FILE: str(run_file),
        names.ENV_WORK_DIR: str(work),
        names.ENV_VOLUMES_DIR: str(volumes),
        names.ENV_SECRETS_DIR: str(Path(secrets).absolute() if secrets else work / "no-secrets"),
        names.ENV_CACHE_DIR: os.environ.get(names.ENV_CACHE_DIR, str(cache)),
    }


def link_volumes(run: TrainingRun, work: Path, volumes: Mapping[str, str]) -> Path:
    """One link per claim in one folder, as the operator's mounts would lie."""
    place = work / "volumes"
    place.mkdir(exist_ok=True)
    for claim, folder in volumes.items():
        target = Path(folder).absolute()
        if not target.is_dir():
            raise invalid_config(f"volume {claim}: {folder} is not a folder", hint="give an existing one")
        link = place / claim
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    for claim, field in named(run.spec, "PersistentVolumeClaim").items():
        if not (place / claim).exists():
            raise invalid_config(
                f"{field} lies on claim {claim}, which has no folder here", hint=f"add --volume {claim}=FOLDER"
            )
    return place


def _wait(command: list[str], environment: Mapping[str, str]) -> int:
    """Wait through Ctrl-C: the terminal sends it to the step too, which answers by ending properly."""
    process = subprocess.Popen(command, env=dict(environment))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            say("stopping after the running step of training; a second Ctrl-C is not needed")
