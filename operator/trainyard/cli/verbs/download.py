"""`trainyard download`: a folder of a run's volume, on this machine."""

import argparse
from pathlib import Path

from trainyard.api.names import CHECKPOINTS_MOUNT
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Misused
from trainyard.cli.fetching import Bar, fetch, list_files
from trainyard.cli.inspection import Place, add_inspection, folder_of, on_volume
from trainyard.cli.printing import print_next, readable_size
from trainyard.cli.successors import checkpoint_path
from trainyard.client import Run

RESULTS = ("model", "adapter")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "path",
        nargs="?",
        default="",
        metavar="PATH",
        help="In the run's folder (model, exports/gguf, logs), a checkpoint (step-10000), or a path on the volume that begins "
        "with /. Default: model, or adapter where there is no model.",
    )
    parser.add_argument(
        "-d", "--directory", "--output-dir", type=Path, metavar="FOLDER", help="Where to. Default: ./RUN/PATH."
    )
    add_inspection(parser)
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Copy a folder of a run's volume to this machine, checked and resumable.

    What is here already is not copied again, what broke off goes on, and every file is compared with the original by its
    sha256. Needs kubectl.
    """
    runs = runs_of(options)
    run = runs.get(name_of(options))
    with on_volume(runs, run, options) as place:
        folder = _folder(place, run, options.path)
        files = list_files(place, folder)
        if not files:
            raise Misused(
                f"there is no file in {folder} on the volume: name another folder; {options.called_as} shell {run.name} shows what there is"
            )
        into = options.directory or Path(run.name) / Path(folder).name
        moved = fetch(place, folder, files, into, tell=Bar())
    total = sum(file.size for file in files)
    print(
        f"{into}: {len(files)} files, {readable_size(total)}, {readable_size(moved)} of them copied now; sha256 checked"
    )
    print_next(f"ls {into}", f"{options.called_as} status {run.name}{same_cluster(options)}")


def _folder(place: Place, run: Run, path: str) -> str:
    """The folder in the container."""
    if ".." in path.split("/"):
        raise Misused(f"{path!r} leaves the volume: give a path without ..")
    own = folder_of(run)
    if not path:
        there = place.run(
            "sh", "-c", f'cd "$1" 2>/dev/null && ls -d {" ".join(RESULTS)} 2>/dev/null; true', "sh", own
        ).split()
        found = next((name for name in RESULTS if name in there), None)
        if found is None:
            raise Misused(f"{run.name} has left no result yet: name a folder, such as checkpoints")
        return f"{own}/{found}"
    if path.startswith(f"{CHECKPOINTS_MOUNT}/"):
        return path.rstrip("/")
    if path.startswith(run.work_dir):
        return f"{CHECKPOINTS_MOUNT}/{path.rstrip('/')}"
    if path.startswith(("/", "step-")):
        return f"{CHECKPOINTS_MOUNT}/{checkpoint_path(run, path)}"
    return f"{own}/{path.rstrip('/')}"
