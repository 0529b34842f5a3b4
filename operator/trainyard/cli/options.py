"""Words that mean the same in more than one verb."""

import argparse
from collections.abc import Iterable

from trainyard.cli.exits import Misused


def completes(kind: str, action: argparse.Action) -> None:
    """What the shell offers in the action's place: run, schedule, sweep, step or file."""
    vars(action)["complete"] = kind


def add_files(parser: argparse.ArgumentParser) -> None:
    """`-f`, as kubectl has it."""
    files = parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        action="append",
        required=True,
        metavar="FILE",
        help="Manifest, folder of manifests, or - for standard input. Repeatable.",
    )
    completes("file", files)


def add_volumes(parser: "argparse._ActionsContainer", *, help: str) -> None:
    parser.add_argument("--volume", action="append", default=[], metavar="CLAIM=FOLDER", help=help)


def folders_of_claims(words: Iterable[str]) -> dict[str, str]:
    """The folder that stands for each claim, from the `CLAIM=FOLDER` words of `--volume`. Raises Misused."""
    folders = {}
    for word in words:
        claim, equals, folder = word.partition("=")
        if not (claim and equals and folder):
            raise Misused(f"--volume {word!r} has not the form CLAIM=FOLDER, for example --volume data=/mnt/data")
        folders[claim] = folder
    return folders
