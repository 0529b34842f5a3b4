"""A run on this machine: from command-line words to the trainer's own local mode."""

import importlib.util
import sys
from pathlib import Path

from trainyard.cli.exits import Misused, Refused

NEEDED = ("torch", "transformers", "trl")


def run_here(text: str, work: Path, folders: dict[str, str], *, secrets: Path | None) -> int:
    """Run all steps of the manifest; the exit code of the first step that did not succeed, else 0.

    Raises:
        Refused: it needs a cluster, or the trainer is missing.
    """
    missing = [library for library in NEEDED if importlib.util.find_spec(library) is None]
    if missing:
        raise Misused(
            f"local runs need {', '.join(missing)}, which this Python ({sys.executable}) does not have: use the environment "
            "of `make venv`, or install trainyard with its extra `trainer`"
        )
    from trainyard.trainer.errors import UserError
    from trainyard.trainer.local import run_local

    work.mkdir(parents=True, exist_ok=True)
    manifest = work / "manifest.yaml"
    manifest.write_text(text)
    try:
        return run_local(manifest, work, folders, secrets=secrets)
    except UserError as error:
        raise Refused(str(error)) from error
