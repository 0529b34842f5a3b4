"""`trainyard checkpoints`: what lies on the volume; the status knows the newest alone."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from trainyard.api.names import CHECKPOINTS_MOUNT
from trainyard.cli.cluster import add_cluster, add_run, name_of, runs_of, same_cluster
from trainyard.cli.exits import Missing
from trainyard.cli.inspection import add_inspection, on_volume
from trainyard.cli.printing import add_output, age, dump, print_next, readable_size, table

SCRIPT = """cd "$1" || exit 1
shift
for d in $@; do
  [ -f "$d/manifest.json" ] || continue
  printf '%s\\t%s\\t%s\\n' "$(du -sk "$d" | cut -f1)" "$(date -u -r "$d/manifest.json" +%Y-%m-%dT%H:%M:%SZ)" "$d"
done
"""


@dataclass(frozen=True)
class Found:
    """A committed checkpoint; the path is that on the volume."""

    step: int
    size: int
    time: str
    path: str


def arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--all-runs", action="store_true", help="Of all runs that share the volume.")
    add_output(parser, forms=("table", "json", "yaml", "name"))
    add_inspection(parser)
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """List the checkpoints on a run's volume.

    resume RUN --from step-N starts a new run from one of them. Needs kubectl.
    """
    runs = runs_of(options)
    run = runs.get(name_of(options))
    root = "*" if options.all_runs else run.work_dir
    patterns = [f"{root}/checkpoints/step-*", f"{root}/phases/*/checkpoints/step-*"]
    with on_volume(runs, run, options) as place:
        found = sorted(
            read(place.run("sh", "-c", SCRIPT, "sh", CHECKPOINTS_MOUNT, *patterns)), key=lambda c: (c.path, c.step)
        )
    if options.output in ("json", "yaml"):
        print(dump([asdict(checkpoint) for checkpoint in found], options.output))
        return
    if not found:
        raise Missing(f"there is no checkpoint of {run.name} on volume {run.checkpoints_claim} yet")
    if options.output == "name":
        print("\n".join(checkpoint.path for checkpoint in found))
        return
    rows = [(str(c.step), readable_size(c.size), f"{age(c.time)} ago", c.path) for c in found]
    print("\n".join(table(("STEP", "SIZE", "SAVED", "PATH"), rows)))
    newest = max(found, key=lambda c: c.step)
    called, where = options.called_as, same_cluster(options)
    resume = f"{called} resume {run.name} --from step-{newest.step}{where}"
    print_next(resume, f"{called} download {run.name} {newest.path}{where}")


def read(text: str) -> Iterator[Found]:
    """The checkpoints in what the script prints."""
    for line in text.splitlines():
        kilobytes, time, path = line.split("\t", 2)
        yield Found(int(path.rpartition("step-")[2]), int(kilobytes) * 1024, time, path)
