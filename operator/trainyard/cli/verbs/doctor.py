"""`trainyard doctor`: the checks of `trainyard.cli.checkup`, and how they end."""

import argparse
from collections.abc import Callable, Iterator

from trainyard.cli.checkup import CHECKS, Finding, Grade
from trainyard.cli.cluster import add_cluster, runs_of
from trainyard.cli.exits import Exit
from trainyard.cli.printing import add_output, dump, paint, wrapped
from trainyard.client import NotAllowed, NotFound, Runs

COLOURS = {Grade.OK: "Succeeded", Grade.NOTE: "Pending", Grade.FAULT: "Failed"}
INDENT = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, forms=("table", "json"))
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Check the installation: CRDs, operator, rights, storage, GPU nodes, queue.

    ok: as it should be. note: works, and there is something to know. FAULT: with what to do about it. Exit code 1 if there is
    any fault. What the user may not read is told as a note.
    """
    runs = runs_of(options)
    runs.api.get("/version")
    findings = [finding for check in CHECKS for finding in _of(check, runs)]
    if options.output == "json":
        print(dump([{"check": f.about, "grade": f.grade, "message": f.message, "do": f.do} for f in findings], "json"))
    else:
        for finding in findings:
            for line in _lines(finding):
                print(line)
    return Exit.FAILED if any(finding.grade is Grade.FAULT for finding in findings) else Exit.DONE


def _of(check: Callable[[Runs], Iterator[Finding]], runs: Runs) -> list[Finding]:
    about = (check.__doc__ or "").rstrip(".")
    try:
        return list(check(runs))
    except NotAllowed as error:
        return [Finding(Grade.NOTE, about, f"you may not look: {error}")]
    except NotFound as error:
        return [Finding(Grade.NOTE, about, f"this cluster has none: {error}")]


def _lines(finding: Finding) -> list[str]:
    first, *more = wrapped(f"{finding.about}: {finding.message}", indent=" " * INDENT)
    grade = paint(f"{finding.grade:<{INDENT}}", COLOURS[finding.grade])
    return [grade + first.strip(), *more, *(wrapped(f"-> {finding.do}", indent=" " * INDENT) if finding.do else ())]
