"""`trainyard watch`: a line for each change of a run, until it has ended."""

import argparse

from trainyard.cli.cluster import add_cluster, runs_of, seconds_of
from trainyard.cli.exits import Exit
from trainyard.cli.fates import told
from trainyard.cli.options import completes
from trainyard.cli.printing import add_output
from trainyard.cli.watching import print_changes
from trainyard.client import TimedOut


def arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.add_argument(
        "name", metavar="RUN", nargs="?", default="", help="Name of the run; without it, all of them."
    )
    completes("run", name)
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="Without RUN: only those with these labels."
    )
    parser.add_argument(
        "--timeout", default="0", metavar="TIME", help="Stop after this long (exit code 124). 0: never."
    )
    add_output(parser)
    add_cluster(parser, all_namespaces=True)


def call(options: argparse.Namespace) -> int:
    """Print a line whenever a run changes, until it has ended.

    Of one run, the exit code is its fate: 0 succeeded, 1 failed or cancelled.
    """
    seconds = seconds_of(options.timeout, option="--timeout")
    name = options.name.rpartition("/")[2]
    last = print_changes(runs_of(options), name=name, selector=options.selector, form=options.output, seconds=seconds)
    if not name or last is None or not last.ended:
        if name and last is not None:
            raise TimedOut(f"{name} has not ended after {options.timeout}: {last.message}")
        return Exit.TIMED_OUT if seconds else Exit.DONE
    return told(last, options) if options.output in ("table", "wide") else int(last.fate != "Succeeded")
