"""`trainyard promote`: the annotation that asks for it."""

import argparse

from trainyard.cli.champions import PROMOTE_ANNOTATION, request_value
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Refused
from trainyard.cli.printing import print_next
from trainyard.client import Fate


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--force", action="store_true", help="Also where its gates have rejected it.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Ask for a run's result to become the champion.

    The operator does it, and tells in status.promotions. Only a run that has succeeded can be promoted.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if run.fate is not Fate.SUCCEEDED:
        raise Refused(f"{name} has no result to promote: {run.standing}")
    passed = run.condition("GatesPassed")
    if passed.get("status") == "False" and not options.force:
        raise Refused(
            f"the gates of {name} have not passed ({passed.get('message')}): --force promotes it all the same"
        )
    runs.annotate(name, {PROMOTE_ANNOTATION: request_value()})
    print(f"asked for {name} to be promoted")
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} status {it}", f"{called} rollback {it}")
