"""`trainyard validate`: all faults of manifests at once, on this machine or with the API server's word."""

import argparse
import sys
from pathlib import Path

from trainyard.cli.exits import Exit
from trainyard.cli.lean import import_lean
from trainyard.cli.options import add_files, add_volumes, folders_of_claims
from trainyard.cli.printing import add_output


def arguments(parser: argparse.ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument(
        "--server",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Also ask the API server of kubectl's current context (a dry run: nothing is created), and look for the Secrets "
        "and claims that the run names.",
    )
    parser.add_argument(
        "--offline", dest="server", action="store_false", help="Read the files and nothing else (default)."
    )
    parser.add_argument(
        "--data", action="store_true", help="Also read and check every record that lies on this machine."
    )
    add_volumes(parser, help="Folder that stands for pvc://CLAIM/... with --data. Repeatable.")
    add_output(parser, forms=("table", "json"))


def call(options: argparse.Namespace) -> int:
    """Check manifests and list everything that is wrong with them, each fault with its line.

    Other kinds in the same file (a Secret, a Namespace) are passed over.
    Exit codes: 0 valid, 1 faults, 2 no such file, 5 no API server answers.
    """
    import_lean()
    from trainyard.cli.checking import check, read_sources, render_json, render_table
    from trainyard.cli.data import with_data

    folders = {claim: Path(folder) for claim, folder in folders_of_claims(options.volume).items()}
    sources = read_sources(options.files, stdin=sys.stdin)
    reports = [with_data(check(source), folders, files=options.data) for source in sources]
    if options.server:
        from trainyard.cli.server import ask_server

        reports = [ask_server(report) for report in reports]
    print(render_json(reports) if options.output == "json" else render_table(reports))
    return Exit.DONE if all(report.valid for report in reports) else Exit.FAILED
