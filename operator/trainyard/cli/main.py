"""Entry point: the commands, their options and their exit codes.

Exit codes: 0 all is well; 1 the manifest has faults, or the local run failed; 2 the command line itself is wrong (no
such file, no kubectl). `trainyard run --local` ends with the exit code of the step that failed.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

FAULTS = 1
USAGE = 2

app = typer.Typer(
    help="Check TrainingRuns and TrainingSchedules, and run a TrainingRun on this machine without a cluster.",
    epilog="In a cluster: kubectl apply -f FILE, then kubectl get trainingruns -w.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


@app.command()
def validate(
    files: Annotated[
        list[str],
        typer.Option(
            "-f",
            "--filename",
            metavar="FILE",
            help="Manifest, folder of manifests, or - for standard input. Repeatable.",
        ),
    ],
    server: Annotated[
        bool,
        typer.Option(
            "--server/--offline",
            help="--server also asks the API server of kubectl's current context (a dry run: nothing is created) and looks "
            "for the Secrets and claims that the run names. --offline reads the files and nothing else.",
        ),
    ] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Also read and check every record that lies on this machine.")
    ] = False,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM=FOLDER", help="Folder that stands for pvc://CLAIM/... with --data. Repeatable."),
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="Form of the answer.")] = Output.TABLE,
) -> None:
    """Check manifests and list everything that is wrong with them, each fault with its line.

    Other kinds in the same file (a Secret, a Namespace) are passed over. Exit code 0: valid; 1: faults; 2: no such file.
    """
    from trainyard.cli.checking import check, read_sources, render_json, render_table

    try:
        sources = read_sources(files, stdin=sys.stdin)
    except OSError as error:
        _refuse(f"cannot read {error.filename}: {error.strerror}")
    reports = [check(source) for source in sources]
    folders = {}
    for word in volume or ():
        claim, equals, folder = word.partition("=")
        if not (claim and equals and folder):
            _refuse(f"--volume {word!r} has not the form CLAIM=FOLDER")
        folders[claim] = Path(folder)
    from trainyard.cli.data import with_data

    reports = [with_data(report, folders, files=data) for report in reports]
    if server:
        from trainyard.cli.kubectl import NoKubectl
        from trainyard.cli.server import ask_server

        try:
            reports = [ask_server(report) for report in reports]
        except NoKubectl as error:
            _refuse(f"{error}; --offline does without")
    typer.echo(render_json(reports) if output is Output.JSON else render_table(reports))
    if not all(report.valid for report in reports):
        raise typer.Exit(FAULTS)


@app.command()
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
        _refuse(f"only local runs are started from here: add --local, or use kubectl apply -f {file}")
    from trainyard.cli.local import LocalRunRefused, run_here

    try:
        code = run_here(file=file, workdir=workdir, volumes=volume or [], secrets=secrets)
    except LocalRunRefused as error:
        _refuse(str(error), code=error.code)
    raise typer.Exit(code)


@app.command()
def run_now(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The TrainingSchedule.")],
    namespace: Annotated[str, typer.Option("-n", "--namespace", help="Default: that of kubectl's context.")] = "",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Of template.spec, for this start alone: training.maxSteps=100. Dots in a key are written \\., the value "
            "is YAML, null removes. Repeatable.",
        ),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this variant's run. Repeatable. Default: all.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if nothing has changed (skipIfUnchanged).")
    ] = False,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, help="How long to wait until the run is made; 0: only ask.")
    ] = 15,
) -> None:
    """Have a TrainingSchedule start its runs now, whatever its clock says, even while it is suspended.

    The request is checked first. Exit code 0: the runs are made (or asked for, with --wait 0); 1: refused, or not made in time.
    """
    from trainyard.cli.kubectl import NoKubectl
    from trainyard.cli.runnow import Refused, Request, start

    request = Request(name, namespace, values=values or [], variants=variant or [], force=force)
    try:
        typer.echo(start(request, wait=wait))
    except NoKubectl as error:
        _refuse(str(error))
    except Refused as error:
        _refuse(str(error), code=FAULTS)


@app.command()
def version() -> None:
    """Print the version of this program and of the API it knows."""
    from importlib.metadata import version as installed

    from trainyard.api import API_VERSION

    typer.echo(f"trainyard {installed('trainyard')} (API {API_VERSION})")


def _refuse(message: str, *, code: int = USAGE) -> NoReturn:
    typer.echo(f"trainyard: {message}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """Run the program under the name it was called by."""
    called_as = Path(sys.argv[0]).name
    name = called_as.replace("kubectl-", "kubectl ").replace("_", "-")
    try:
        app(prog_name=name if name.endswith("trainyard") else "trainyard")
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
