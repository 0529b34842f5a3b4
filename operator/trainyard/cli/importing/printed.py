"""A TrainingRun on standard output, with what could not be carried over as comments above it."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from trainyard.api import API_VERSION
from trainyard.api.manifest import InvalidManifest, parse_run, read_documents
from trainyard.cli.exits import Exit, Misused, Refused
from trainyard.cli.importing.kinds import imported
from trainyard.cli.printing import dump


def print_run(options: argparse.Namespace) -> int:
    """The exit code. Raises Refused."""
    if len(options.files) != 1:
        raise Misused("one configuration at a time: give -f once")
    file = options.files[0]
    config = _read(file)
    kind, reading = imported(config, kind=options.kind, claim=options.claim)
    name = options.name or _name(file)
    run = {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": name}, "spec": reading.spec}
    lost = [*reading.notes, *reading.rest()]
    print(f"# Made by trainyard import of a configuration of {kind}.")
    print("# Not carried over:" if lost else "# Everything was carried over.")
    for line in lost:
        print(f"# - {line}")
    print(dump(run, "yaml"))
    faults = _faults(run)
    for fault in faults:
        print(f"{file}: {fault}", file=sys.stderr)
    return Exit.FAILED if faults else Exit.DONE


def _read(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Misused(f"cannot read {error.filename}: {error.strerror}") from error
    try:
        documents = read_documents(text)
    except InvalidManifest as error:
        raise Refused(f"{file}: {error.faults[0]}") from error
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise Refused(f"{file} holds {len(documents)} documents; expected one mapping of keys to values")
    return dict(documents[0].value)


def _name(file: str) -> str:
    stem = "imported" if file == "-" else Path(file).stem.lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:50].strip("-") or "imported"


def _faults(run: dict[str, Any]) -> list[str]:
    try:
        parse_run(run)
    except InvalidManifest as error:
        return [str(fault) for fault in error.faults]
    return []
