"""`trainyard approve`: let a run begin that waits for somebody's word."""

import argparse

from trainyard.api.names import APPROVED_ANNOTATION
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Refused
from trainyard.cli.printing import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="Why, or who says so; it stands on the run.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Let a run begin that waits for approval of its cost.

    It is one with spec.cost.requireApproval. Where the chart's admission policies are on, that takes the verb approve on trainingruns.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if run.ended:
        raise Refused(f"{name} has ended ({run.state}): there is nothing to approve")
    if not (run.spec.get("cost") or {}).get("requireApproval"):
        raise Refused(f"{name} waits for no approval: spec.cost.requireApproval is not true")
    if run.status.get("startTime"):
        raise Refused(f"{name} has begun already ({run.state}): what it may spend is spec.cost.limit")
    runs.annotate(name, {APPROVED_ANNOTATION: options.reason or "with trainyard approve"})
    print(f"{name} may begin")
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} watch {it}", f"{called} list --cost{same_cluster(options)}")
