"""`trainyard run --local`: from command-line words to the trainer's own local mode.

The manifest is checked first with the same report as `trainyard validate`, so that a typo costs a second and not the time
until the trainer has imported torch.
"""

import importlib.util
import sys
from pathlib import Path

from trainyard.api.run.trainingrun import TrainingRun
from trainyard.cli.checking import check, read_sources, render_table

FAULTS = 1
USAGE = 2
NEEDED = ("torch", "transformers", "trl")


class LocalRunRefused(RuntimeError):
    """Nothing was started; `code` is the program's exit code."""

    def __init__(self, message: str, *, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def run_here(*, file: str, workdir: Path | None, volumes: list[str], secrets: Path | None) -> int:
    """Run all steps of the file's only TrainingRun; the exit code of the first step that did not succeed, else 0.

    Raises:
        LocalRunRefused: the manifest has faults or needs a cluster, an option is malformed, or the trainer is missing.
    """
    folders = dict(_volume(word) for word in volumes)
    text, run = _only_run(file)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalRunRefused(
            f"local runs need {', '.join(missing)}, which this Python ({sys.executable}) does not have: use the environment "
            "of `make venv`, or install trainyard with its extra `trainer`"
        )
    from trainyard.trainer.errors import UserError
    from trainyard.trainer.local import run_local

    work = workdir or Path("trainyard") / run.metadata.name
    work.mkdir(parents=True, exist_ok=True)
    manifest = work / "manifest.yaml"
    manifest.write_text(text)
    try:
        return run_local(manifest, work, folders, secrets=secrets)
    except UserError as error:
        raise LocalRunRefused(str(error), code=FAULTS) from error


def _volume(word: str) -> tuple[str, str]:
    claim, equals, folder = word.partition("=")
    if not (claim and equals and folder):
        raise LocalRunRefused(f"--volume {word!r} has not the form CLAIM=FOLDER")
    return claim, folder


def _only_run(file: str) -> tuple[str, TrainingRun]:
    try:
        sources = read_sources([file], stdin=sys.stdin)
    except OSError as error:
        raise LocalRunRefused(f"cannot read {error.filename}: {error.strerror}") from error
    if len(sources) != 1:
        raise LocalRunRefused(f"{file} is a folder of {len(sources)} manifests; name one of them")
    report = check(sources[0])
    if not report.valid:
        raise LocalRunRefused(f"nothing was started\n{render_table([report])}", code=FAULTS)
    runs = [one.model for one in report.objects if isinstance(one.model, TrainingRun)]
    if len(runs) != 1:
        names = ", ".join(run.metadata.name for run in runs)
        raise LocalRunRefused(f"{report.name} holds {len(runs)} TrainingRuns ({names}); a local run takes one")
    return sources[0].text, runs[0]
