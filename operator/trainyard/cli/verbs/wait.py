"""`trainyard wait`: nothing until the run has ended, and then its fate as an exit code."""

import argparse

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, seconds_of
from trainyard.cli.exits import Exit, Refused
from trainyard.cli.fates import told
from trainyard.client import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--for",
        dest="until",
        default="",
        metavar="STATE",
        help="Wait for this state (Training) or condition (Suspended) instead of the end. A run that ends otherwise: exit "
        "code 1.",
    )
    parser.add_argument(
        "--timeout", default="0", metavar="TIME", help="At most this long (exit code 124). Default: no limit."
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Wait until a run has ended, and end as it did.

    Exit codes: 0 succeeded, 1 failed or cancelled, 3 deleted, 124 not in time.
    """
    seconds = seconds_of(options.timeout, option="--timeout")
    run = runs_of(options).wait(
        name_of(options), seconds=seconds, until=lambda run: run.ended or _is_there(run, options.until)
    )
    if not options.until:
        return told(run, options)
    if not _is_there(run, options.until):
        raise Refused(f"{run.name} is {run.state}, and will not become {options.until}: {run.message}")
    print(f"{run.name} {run.standing}")
    return Exit.DONE


def _is_there(run: Run, wanted: str) -> bool:
    if not wanted:
        return False
    condition = run.condition(wanted[:1].upper() + wanted[1:])
    return run.state.lower() == wanted.lower() or condition.get("status") == "True"
