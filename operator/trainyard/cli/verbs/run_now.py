"""`trainyard run-now`: one start of a schedule by hand. What is done is in `trainyard.cli.asking`."""

import argparse

from trainyard.cli.cluster import add_cluster
from trainyard.cli.lean import import_lean
from trainyard.cli.options import completes


def arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.add_argument("name", metavar="SCHEDULE", help="Name of the TrainingSchedule.")
    completes("schedule", name)
    parser.add_argument(
        "--set",
        dest="values",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="Of template.spec, for this start alone: training.maxSteps=100. Dots in a key are written \\., the value is YAML, "
        "null removes. Repeatable.",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME",
        help="Only this variant's run. Repeatable. Default: all.",
    )
    parser.add_argument("--force", action="store_true", help="Train even if nothing has changed (skipIfUnchanged).")
    parser.add_argument(
        "--wait",
        default="15s",
        metavar="TIME",
        help="How long to wait until the run is made; 0: only ask. Default: 15s.",
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Have a TrainingSchedule start its runs now, whatever its clock says.

    Also while it is suspended. The request is checked first.
    """
    import_lean()
    # Judging a request takes pydantic, and neither --help nor the shell's completion should wait for that.
    from trainyard.cli.asking import ask

    ask(options)
