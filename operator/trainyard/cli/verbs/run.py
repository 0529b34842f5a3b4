"""`trainyard run`: start a run in the cluster, or on this machine.

What is done is in `trainyard.cli.starting`.
"""

import argparse
from pathlib import Path

from trainyard.cli.cluster import add_cluster
from trainyard.cli.lean import import_lean
from trainyard.cli.options import add_volumes, completes


def arguments(parser: argparse.ArgumentParser) -> None:
    file = parser.add_argument(
        "-f", "--filename", dest="file", required=True, metavar="FILE", help="Manifest with one TrainingRun, or -."
    )
    completes("file", file)
    changes = parser.add_argument_group("Changes to the manifest")
    changes.add_argument("--name", default="", metavar="NAME", help="Another name for the run.")
    changes.add_argument("--debug", action="store_true", help="Train only debugSteps steps (mode Debug).")
    changes.add_argument(
        "--dry-run", action="store_true", help="Check data and spec, estimate, and stop (mode DryRun)."
    )
    changes.add_argument("--phase", action="append", default=[], metavar="NAME", help="Only this phase. Repeatable.")
    changes.add_argument(
        "--set",
        dest="values",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="Of spec: training.maxSteps=100. Repeatable.",
    )
    after = parser.add_argument_group("Afterwards")
    after.add_argument(
        "-w", "--watch", action="store_true", help="Print a line for each change, and end as the run does."
    )
    after.add_argument(
        "--wait", nargs="?", const="0", default=None, metavar="TIME", help="Wait for the end, and end as the run does."
    )
    here = parser.add_argument_group("On this machine")
    here.add_argument("--local", action="store_true", help="Run all steps here, as processes of this machine.")
    here.add_argument(
        "--workdir",
        type=Path,
        metavar="FOLDER",
        help="Where data, checkpoints and the model go. Default: ./trainyard/NAME. Kept, and resumed from.",
    )
    add_volumes(here, help="Folder that stands for pvc://CLAIM/... Repeatable.")
    here.add_argument(
        "--secrets",
        type=Path,
        metavar="FOLDER",
        help="Folder with one folder a Secret and one file a key, for secretRef.",
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Start a TrainingRun in the cluster, or run it on this machine without one.

    The manifest is checked first, here and then by the API server. Other kinds beside it are not created: use kubectl apply
    for those. With --local the exit code is that of the step that failed.
    """
    import_lean()
    # Checking a manifest takes pydantic, and neither --help nor the shell's completion should wait for that.
    from trainyard.cli.starting import start

    return start(options)
