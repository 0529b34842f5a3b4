"""`trainyard cancel`: end a run for good."""

import argparse

from trainyard.api.names import CANCEL_ANNOTATION
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Exit, Refused
from trainyard.cli.printing import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="Why; it stands in the run's status.")
    parser.add_argument("--wait", nargs="?", const="10m", default="", metavar="TIME", help="Wait until it has ended.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """End a run for good, after it has written a checkpoint.

    It becomes Cancelled. Its volume stays, and retry goes on from the checkpoint in a new run.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if run.ended:
        raise Refused(f"{name} has ended ({run.state}): there is nothing to cancel")
    runs.annotate(name, {CANCEL_ANNOTATION: options.reason or "asked for with trainyard cancel"})
    print(f"{name} will write a checkpoint and end as Cancelled")
    if options.wait:
        run = runs.wait(name, seconds=seconds_of(options.wait, option="--wait"))
        print(f"{name} {run.standing}")
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} status {it}", f"{called} retry {it}", f"kubectl delete trainingrun {it}")
    return Exit.DONE
