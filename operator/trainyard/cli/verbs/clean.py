"""`trainyard clean`: delete runs that ended long ago, with their checkpoints."""

import argparse

from trainyard.cli.cluster import add_cluster, runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Misused
from trainyard.cli.leftovers import claim_of, leftovers
from trainyard.cli.printing import age, print_next, table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", default="30d", metavar="TIME", help="Since a run's end: 30d, 12h. Default: 30d."
    )
    parser.add_argument("-l", "--selector", default="", metavar="LABELS", help="Only those with these labels.")
    parser.add_argument(
        "--claims",
        action="store_true",
        help="Also checkpoint claims that the operator made and that outlive their runs.",
    )
    parser.add_argument("--dry-run", action="store_true", help="List them and delete nothing.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Delete runs that ended long ago, with their checkpoints.

    A run's own claim goes with it; one with retain: true, or that another run mounts, stays without --claims. Runs whose result is
    promoted, and those from which another run or a schedule starts, are kept.
    """
    if (seconds := seconds_of(options.older_than, option="--older-than")) is None:
        raise Misused("--older-than 0 would take runs that have just ended: give a time, or delete them with kubectl")
    runs = runs_of(options)
    wanted = {run.name for run in runs.list(selector=options.selector)}
    schedules = list(runs.api.items(runs.path(plural="trainingschedules")))
    claims = list(runs.api.items(runs.core("persistentvolumeclaims"))) if options.claims else []
    # What is not selected stays, and may need one that is: so all of them are looked at.
    every = runs.list()
    found = leftovers(every, schedules, claims, seconds=seconds, selected=wanted)
    rows = [(run.name, run.state, f"{age(run.status.get('completionTime'))} ago", claim_of(run)) for run in found.runs]
    if rows:
        print("\n".join(table(("NAME", "STATE", "ENDED", "CLAIM"), rows)))
    for run, why in found.kept:
        print(f"{run.name} is kept: {why}")
    if not options.dry_run:
        for run in found.runs:
            runs.delete(run.name)
        for claim in found.claims:
            runs.api.delete(runs.core("persistentvolumeclaims", claim))
    would = "would be deleted" if options.dry_run else "deleted"
    print(f"{len(found.runs)} runs {would}" + (f", and claims {', '.join(found.claims)}" if found.claims else ""))
    if options.dry_run and found.runs:
        claims_too = " --claims" if options.claims else ""
        selector = f" -l {options.selector}" if options.selector else ""
        where = same_cluster(options)
        print_next(f"{options.called_as} clean --older-than {options.older_than}{claims_too}{selector}{where}")
