"""`trainyard shell`: a terminal, or one command, where a run's volume is."""

import argparse
import subprocess
import sys

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of
from trainyard.cli.inspection import add_inspection, folder_of, on_volume

IN_ITS_FOLDER = 'cd "$0" 2>/dev/null; if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.set_defaults(takes_command=True)
    parser.add_argument("--write", action="store_true", help="The volume of a short-lived pod may be written to.")
    add_inspection(parser)
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Open a shell in the trainer's pod, or in a short-lived one with its volume.

    It begins in the run's folder: checkpoints/, model/, dataset/. Where no pod of the run works, one with the same volume is
    made for the time of the shell. After --, one command instead of a shell: trainyard shell RUN -- ls -l. Needs kubectl. The
    exit code is that of the shell or the command.
    """
    runs = runs_of(options)
    run = runs.get(name_of(options))
    with on_volume(runs, run, options, write=options.write) as place:
        what = "pod" if place.own else "short-lived pod"
        print(f"{what} {place.pod}, volume {run.checkpoints_claim}", file=sys.stderr)
        command = options.command or ["sh", "-c", IN_ITS_FOLDER, folder_of(run)]
        terminal = "-it" if sys.stdin.isatty() and sys.stdout.isatty() else "-i"
        return subprocess.run([*place.words, terminal, "--", *command]).returncode
