"""`trainyard report`: what a bug report needs, in one file."""

import argparse
import tarfile
import time
from io import BytesIO
from pathlib import Path

from trainyard.cli.cluster import add_cluster, runs_of
from trainyard.cli.options import completes
from trainyard.cli.printing import readable_size


def arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.add_argument(
        "name", nargs="?", default="", metavar="RUN", help="The run; without it, all runs of the namespace."
    )
    completes("run", name)
    parser.add_argument("--file", type=Path, metavar="FILE", help="Default: trainyard-report-<time>.tar.gz, here.")
    parser.add_argument("--log-lines", type=int, default=2000, metavar="N", help="The end of each log. Default: 2000.")
    add_cluster(parser)


def call(options: argparse.Namespace) -> None:
    """Pack everything about a run for a bug report, without secrets.

    In it: the runs, their Jobs, pods, claims, Events and logs, the operator's Deployment and log, what the checks of doctor
    say, versions. No Secret is read; values of environment variables are left out, and what looks like a key, token or
    password in any text is replaced. Read it all the same before you send it.
    """
    from trainyard.cli.bundle import collect

    runs = runs_of(options)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    target = options.file or Path(f"trainyard-report-{stamp}.tar.gz")
    count = 0
    with tarfile.open(target, "w:gz") as bundle:
        for name, text in collect(runs, options.name.rpartition("/")[2], log_lines=options.log_lines):
            content = text.encode()
            entry = tarfile.TarInfo(f"trainyard-report-{stamp}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            bundle.addfile(entry, BytesIO(content))
            count += 1
    print(f"{target}: {count} files, {readable_size(target.stat().st_size)}; read it before you send it")
