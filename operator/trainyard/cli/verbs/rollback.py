"""`trainyard rollback`: the annotation that asks for it."""

import argparse

from trainyard.cli.champions import ROLLBACK_ANNOTATION, request_value
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Refused
from trainyard.cli.printing import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Ask for the champion before this run's result to be set back.

    The operator does it, and tells in status.promotions: aliases and the pointers of the exports go back to what they were
    before this run was promoted.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if not run.ended:
        raise Refused(f"{name} has not ended ({run.state}): nothing of it has been promoted yet")
    runs.annotate(name, {ROLLBACK_ANNOTATION: request_value()})
    print(f"asked for the promotion of {name} to be taken back")
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} status {it}", f"{called} promote {it}")
