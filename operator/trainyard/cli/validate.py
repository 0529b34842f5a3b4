"""`trainyard validate`: all faults of manifests at once, on this machine or with the API server's word."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainyard.cli.checking import check, read_sources, render_json, render_table
from trainyard.cli.data import with_data
from trainyard.cli.exits import Misused, Refused
from trainyard.cli.options import folders_of_claims


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


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
    folders = {claim: Path(folder) for claim, folder in folders_of_claims(volume or ()).items()}
    reports = [with_data(check(source), folders, files=data) for source in read_sources(files, stdin=sys.stdin)]
    if server:
        # Most calls ask nobody.
        from trainyard.cli.kubectl import NoKubectl
        from trainyard.cli.server import ask_server

        try:
            reports = [ask_server(report) for report in reports]
        except NoKubectl as error:
            raise Misused(f"{error}; --offline does without") from error
    typer.echo(render_json(reports) if output is Output.JSON else render_table(reports))
    if not all(report.valid for report in reports):
        raise typer.Exit(Refused.code)
