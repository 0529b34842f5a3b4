"""`trainyard run --local`: from command-line words to the trainer's own local mode.

The manifest is checked first with the same report as `trainyard validate`, so that a typo costs a second and not the time
until the trainer has imported torch.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainyard.api.run.trainingrun import TrainingRun
from trainyard.cli.checking import check, read_sources, render_table
from trainyard.cli.exits import Misused, Refused
from trainyard.cli.options import folders_of_claims

NEEDED = ("torch", "transformers", "trl")


def run(
    file: Annotated[str, typer.Option("-f", "--filename", metavar="FILE", help="Manifest with one TrainingRun, or -.")],
    local: Annotated[bool, typer.Option("--local", help="Run all steps here, as processes of this machine.")] = False,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where data, checkpoints and the model go. Default: ./trainyard/NAME. Kept, and resumed from."
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM=FOLDER", help="Folder that stands for pvc://CLAIM/... Repeatable."),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder with one folder a Secret and one file a key, for secretRef."),
    ] = None,
) -> None:
    """Run a TrainingRun on this machine: the same manifest, the same trainer, no Kubernetes."""
    if not local:
        raise Misused(f"only local runs are started from here: add --local, or use kubectl apply -f {file}")
    raise typer.Exit(_run_here(file, workdir, folders_of_claims(volume or ()), secrets=secrets))


def _run_here(file: str, workdir: Path | None, folders: dict[str, str], *, secrets: Path | None) -> int:
    """Run all steps of the file's only TrainingRun; the exit code of the first step that did not succeed, else 0.

    Raises:
        Refused: the manifest has faults or needs a cluster, or the trainer is missing.
    """
    text, name = _only_run(file)
    missing = [library for library in NEEDED if importlib.util.find_spec(library) is None]
    if missing:
        raise Misused(
            f"local runs need {', '.join(missing)}, which this Python ({sys.executable}) does not have: use the environment "
            "of `make venv`, or install trainyard with its extra `trainer`"
        )
    from trainyard.trainer.errors import UserError
    from trainyard.trainer.local import run_local

    work = workdir or Path("trainyard") / name
    work.mkdir(parents=True, exist_ok=True)
    manifest = work / "manifest.yaml"
    manifest.write_text(text)
    try:
        return run_local(manifest, work, folders, secrets=secrets)
    except UserError as error:
        raise Refused(str(error)) from error


def _only_run(file: str) -> tuple[str, str]:
    """The text of the file and the name of the one run in it."""
    sources = read_sources([file], stdin=sys.stdin)
    if len(sources) != 1:
        raise Misused(f"{file} is a folder of {len(sources)} manifests; name one of them")
    report = check(sources[0])
    if not report.valid:
        raise Refused(f"nothing was started\n{render_table([report])}")
    runs = [one.model.metadata.name for one in report.objects if isinstance(one.model, TrainingRun)]
    if len(runs) != 1:
        raise Misused(f"{report.name} holds {len(runs)} TrainingRuns ({', '.join(runs)}); a local run takes one")
    return sources[0].text, runs[0]
