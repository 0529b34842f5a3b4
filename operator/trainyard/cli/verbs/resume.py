"""`trainyard resume`: a suspended run goes on; with `--from`, a new one starts from one of its checkpoints."""

import argparse

from trainyard.api.conditions import Reason
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Refused
from trainyard.cli.printing import print_next
from trainyard.cli.successors import checkpoint_path, create_successor


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--from",
        dest="source",
        default="",
        metavar="CHECKPOINT",
        help="Start a new run from here: step-10000 or /checkpoints/step-10000 of RUN, a path on its volume, or another run "
        "with the same volume.",
    )
    parser.add_argument("--name", dest="new_name", default="", metavar="NAME", help="With --from: the new run's name.")
    parser.add_argument(
        "--cost-limit", type=float, metavar="AMOUNT", help="Raise spec.cost.limit, for a run that has reached it."
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Let a suspended run go on, or start a new one from one of its checkpoints.

    A run that was suspended goes on by itself at its newest checkpoint. An earlier one needs a new run, because a run never
    goes back: --from makes it, with the same spec and volume.
    """
    runs, name = runs_of(options), name_of(options)
    run = runs.get(name)
    if options.source:
        path = checkpoint_path(run, options.source)
        run = create_successor(runs, run, resume_from=path, name=options.new_name)
        name = run.name
        print(f"created {name}, which starts from {path}")
    elif run.ended:
        raise Refused(
            f"{name} has ended ({run.state}) and stays so: {options.called_as} retry {name}{same_cluster(options)} makes a "
            "new run that goes on from its newest checkpoint"
        )
    elif run.condition("Suspended").get("reason") == Reason.COST_LIMIT and options.cost_limit is None:
        raise Refused(f"{name} has reached its limit: {run.message}; --cost-limit AMOUNT raises it")
    elif not run.spec.get("suspend") and options.cost_limit is None:
        print(f"{name} is not suspended: {run.standing}")
    else:
        cost = {} if options.cost_limit is None else {"cost": {"limit": options.cost_limit}}
        runs.patch(name, {"spec": {"suspend": False, **cost}})
        step = (run.status.get("checkpoint") or {}).get("step")
        print(f"{name} goes on" + (f" from step {step}" if step is not None else ""))
    called, it = options.called_as, name + same_cluster(options)
    print_next(f"{called} watch {it}", f"{called} logs -f {it}", f"{called} stop {it}")
