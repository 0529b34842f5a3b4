"""`trainyard stop`: suspend a run, which keeps what it has learnt."""

import argparse

from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster, seconds_of
from trainyard.cli.exits import Exit, Refused
from trainyard.cli.printing import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--cancel", action="store_true", help="End it for good instead, as trainyard cancel does.")
    parser.add_argument(
        "--wait", nargs="?", const="10m", default="", metavar="TIME", help="Wait until its pods are gone."
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Suspend a run: it writes a checkpoint and frees its GPU.

    resume lets it go on from there, also days later. The volume stays.
    """
    if options.cancel:
        from trainyard.cli.verbs import cancel

        options.reason = ""
        return cancel.call(options)
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if run.ended:
        raise Refused(f"{name} has ended ({run.state}): there is nothing to stop")
    if run.spec.get("suspend"):
        print(f"{name} is already to be suspended: {run.standing}")
    else:
        runs.patch(name, {"spec": {"suspend": True}})
        print(f"{name} will write a checkpoint and stop")
    if options.wait:
        seconds = seconds_of(options.wait, option="--wait")
        run = runs.wait(
            name, seconds=seconds, until=lambda r: r.ended or r.condition("Suspended").get("status") == "True"
        )
        print(f"{name} {run.standing}")
        if run.ended:
            return Exit.FAILED
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} status {it}", f"{called} resume {it}", f"{called} cancel {it}")
    return Exit.DONE
